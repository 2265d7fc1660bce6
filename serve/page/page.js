// What the page does without asking the server: it keeps conversations in this browser, and draws the open one.
// Each function that Gradio calls takes the values of its widgets and returns their new ones (see history.py).
//
// A conversation is a tree: { id, title, time, model, settings, head, nodes }. A node is a question or an answer,
// { id, parent, role, text } and for answers thought, seconds, caption, record (by which it can be judged), verdict,
// done (the model ended it), cut (something else did), by (the model that gave it, which may be a candidate in the place
// of the one that was picked) and of (the record of the answer that it was edited from).
// Versions of one turn have one parent; `head` is the end of the branch that was shown last. Every change reads what is
// stored and writes it again at once: other tabs write too.
const tunesmith = (() => {
  const PREFIX = "tunesmith.conversation.";
  const OPEN = "tunesmith.open"; // of this tab, for after a reload
  const VISITOR = "tunesmith.visitor"; // { id, consent }: random, made when the visitor agrees that judgements are kept
  const MOST = 200; // conversations
  const ROOM = 4_000_000; // characters of them all: a browser grants 5 million
  const FILE_MOST = 500_000; // bytes of an attached file: a request has a million
  const SETTINGS = 7; // the system prompt, and what `sampling` in controls.py takes
  const SAVE_MS = 500; // an answer that comes is stored so often
  const MARK = "\u2063"; // invisible: keeps Gradio from taking a sign for Markdown (see `marked`)
  const VERDICTS = { good: "Like", bad: "Dislike" };

  // What is stored. Where a browser keeps nothing, memory does until the page is left.
  class Memory {
    getItem(key) { return this[key] ?? null; }
    setItem(key, text) { this[key] = text; }
    removeItem(key) { delete this[key]; }
  }
  const usable = (name) => {
    try {
      window[name].setItem(PREFIX, "");
      window[name].removeItem(PREFIX);
      return window[name];
    } catch {
      return new Memory();
    }
  };
  const store = usable("localStorage");
  const tab = usable("sessionStorage");
  const stored = () => Object.keys(store).filter((key) => key.startsWith(PREFIX));
  const newId = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

  const read = (id) => {
    try {
      return JSON.parse(store.getItem(PREFIX + id));
    } catch {
      return null;
    }
  };
  const all = () =>
    stored().map((key) => read(key.slice(PREFIX.length))).filter(Boolean).sort((a, b) => b.time - a.time);
  const write = (conversation) => {
    const text = JSON.stringify(conversation);
    for (;;) {
      try {
        return store.setItem(PREFIX + conversation.id, text);
      } catch {
        const oldest = all().filter(({ id }) => id !== conversation.id).at(-1);
        if (!oldest) return say("This browser has no room for the conversation: it is lost when the page is left.");
        store.removeItem(PREFIX + oldest.id);
      }
    }
  };
  const prune = () => {
    const kept = all();
    let room = ROOM;
    kept.forEach(({ id }, place) => {
      room -= store.getItem(PREFIX + id).length;
      if (place >= MOST || (room < 0 && place)) store.removeItem(PREFIX + id);
    });
  };
  // Changes a conversation; one that another tab has deleted stays deleted.
  const change = (id, act) => {
    const conversation = read(id);
    if (!conversation) return;
    act(conversation);
    write(conversation);
  };
  const nodeOf = (conversation, id) => conversation?.nodes.find((node) => node.id === id);
  const drop = (conversation, id) => (conversation.nodes = conversation.nodes.filter((node) => node.id !== id));
  const path = (conversation, head) => {
    const nodes = new Map(conversation.nodes.map((node) => [node.id, node]));
    const turns = [];
    for (let node = nodes.get(head); node; node = nodes.get(node.parent)) turns.unshift(node);
    return turns;
  };
  const leaf = (conversation, id) => {
    const child = conversation.nodes.findLast((node) => node.parent === id);
    return child ? leaf(conversation, child.id) : id;
  };
  const versions = (conversation, node) =>
    conversation.nodes.filter(({ parent, role }) => parent === node.parent && role === node.role);
  const title = (conversation) =>
    conversation.title || (conversation.nodes[0]?.text ?? "").trim().replace(/\s+/g, " ").slice(0, 100);
  const short = (text) => (text.length > 48 ? `${text.slice(0, 47)}…` : text);

  // What is open here.
  let open = null; // the conversation's id
  let head = null; // the last node that is shown
  let turns = []; // the nodes that are shown, questions and answers in turn
  let siblings = new Map(); // of each that is shown, its versions' ids
  let under = null; // the answer under way here, see `wait`
  let gone = null; // the answer that went on without this page
  let stale = false; // another tab has changed the open conversation
  let settled = 0; // when the widgets have taken the values of a conversation that was opened
  let rested = 0; // until when no answer is drawn: of a long one each drawing takes its time, and clicks need some too
  let sought = "";
  let models = new Map(); // the name of the model that is served, by each that stands for it
  let consent = null; // what is kept of judgements and for what, { version, kept, purpose }, where answers are judged
  let edited = null; // the answer that was edited last, { record, text }

  const present = (model) => models.get(model) ?? models.get(model?.split("/")[0]); // what a name of an alias goes on with

  // What Gradio shows.
  const update = (values) => ({ __type__: "update", ...values });
  const VIEW = ["message", "chat", "list", "opened", "title", "why", "model", "settings"];
  const view = (values) =>
    VIEW.filter((name) => name !== "why" || consent).flatMap((name) =>
      name === "settings" ? (values.settings ?? Array(SETTINGS).fill(undefined)) : [values[name]],
    );
  const idle = { submit_btn: true, stop_btn: false };
  const busy = { submit_btn: false, stop_btn: true };
  const message = (node, key, metadata, more) => {
    const content = [{ type: "text", text: markedOf(node, key) }];
    return { role: node.role, content, metadata: { id: node.id, ...metadata }, ...more };
  };
  const drawn = (node) => {
    if (node.role === "user") return [message(node, "text")];
    const messages = [];
    if (node.thought) {
      const [title, status] = node.thinking ? ["Thinking…", "pending"] : ["Thought", "done"];
      const time = node.seconds ? { duration: node.seconds } : {};
      messages.push(message(node, "thought", { id: `${node.id}-thought`, title, status, ...time }));
    }
    if (node.text || node.done || node.cut || (node.thought && !node.thinking)) {
      const options = node.cut && node.id !== under?.id ? [{ value: "continue", label: "Continue" }] : null;
      messages.push(message(node, "text", {}, { options }));
    }
    return messages;
  };
  const chat = () => {
    soon();
    const verdicts = turns.filter(({ role }) => role === "assistant").map(({ verdict }) => VERDICTS[verdict] ?? null);
    return update({ value: turns.flatMap(drawn), feedback_value: verdicts });
  };
  const list = () => {
    const words = (one) => [title(one), ...one.nodes.map(({ text }) => text)].join("\n").toLowerCase();
    const found = all().filter((one) => !sought || words(one).includes(sought));
    return update({ choices: found.map((one) => [short(title(one)), one.id]), value: open });
  };
  const show = (conversation, to) => {
    open = conversation?.id ?? null;
    head = conversation ? to : null;
    turns = conversation ? path(conversation, head) : [];
    siblings = new Map(turns.map((node) => [node.id, versions(conversation, node).map(({ id }) => id)]));
    if (open) tab.setItem(OPEN, open);
    else tab.removeItem(OPEN);
  };
  const whole = (more = {}) => {
    const conversation = open && read(open);
    return view({
      message: update(under ? busy : idle),
      chat: chat(),
      list: list(),
      opened: update({ visible: Boolean(conversation) }),
      title: conversation ? title(conversation) : "",
      why: update({ visible: false }),
      ...more,
    });
  };
  const press = (name) => setTimeout(() => document.querySelector(`#${name}`)?.click());

  // Asking. The question and an empty answer are stored before the server hears of them. Of the answer under way:
  // `before` is the head to go back to if nothing comes, `question` its node if it is new, `returned` that one's text,
  // `base` what the answer begins with, `replaces` the node that it goes on from, `fields` what has come.
  const said = ({ role, text, thought = "" }) => ({ role, content: text, thought });
  const wait = (conversation, answer, { follows = false, goesOn, ...about }) => {
    const past = path(conversation, answer.parent);
    const asked = past.map(said);
    const last = goesOn ?? past.findLast(({ role }) => role === "assistant");
    const beginning = goesOn ? { goes_on: true, continues: goesOn.record ?? "" } : {};
    const asking = goesOn ? [...asked, said(goesOn)] : asked;
    const held = { conversation: conversation.id, by: last?.by ?? "" };
    const request = { id: answer.id, turns: asking, ...beginning, ...held, only_follow: follows };
    under = { id: answer.id, conversation: conversation.id, base: said(answer), request, saved: 0, ...about };
    press("ask");
  };
  const askFor = ({ parent, question, goesOn, ...about }, [model, ...settings]) => {
    const conversation = (open && read(open)) || { id: newId(), title: "", nodes: [] };
    const before = head;
    const asked = question === undefined ? null : { id: newId(), parent, role: "user", text: question };
    if (asked) conversation.nodes.push(asked);
    const { text = "", thought = "" } = goesOn ?? {};
    const answer = { id: newId(), parent: asked?.id ?? parent, role: "assistant", text, thought };
    conversation.nodes.push(answer);
    Object.assign(conversation, { model, settings, time: Date.now(), head: answer.id });
    write(conversation);
    prune();
    show(conversation, answer.id);
    wait(conversation, answer, { before, question: asked?.id, goesOn, ...about });
  };
  // Goes on with an answer that was under way when the page was left.
  const resume = () => {
    const answer = turns.at(-1);
    if (!answer || answer.role !== "assistant" || answer.done || answer.cut) return;
    const asked = turns.at(-2);
    const alone = siblings.get(answer.id).length === 1;
    const back = alone ? { before: asked.parent, question: asked.id, returned: asked.text } : { before: asked.id };
    wait(read(open), answer, { follows: Boolean(answer.text || answer.thought), ...back });
  };
  const leave = () => {
    if (!under) return;
    save();
    gone = under.id;
    under = null;
    press("leave");
  };
  const save = () => {
    const { id, fields } = under;
    under.saved = Date.now();
    if (fields) change(under.conversation, (conversation) => Object.assign(nodeOf(conversation, id) ?? {}, fields));
  };
  // The answer under way has ended: it is whole, cut, or nothing of it came, and then all is as before.
  const close = (value) => {
    const { id, fields, base, before, question, returned, replaces } = under;
    const begun = base.content || base.thought;
    under = null;
    let last = id;
    change(open, (conversation) => {
      if (fields || (begun && !replaces)) {
        Object.assign(nodeOf(conversation, id) ?? {}, fields, fields?.done ? {} : { cut: true });
        if (replaces) drop(conversation, replaces);
      } else {
        drop(conversation, id);
        if (question) drop(conversation, question);
        last = before;
      }
      conversation.head = last;
    });
    const conversation = read(open);
    if (conversation && !conversation.nodes.length) store.removeItem(PREFIX + open);
    show(conversation?.nodes.length ? conversation : null, last);
    return whole(last === id || !returned ? {} : { message: typed(returned, value) });
  };
  const say = (words) => {
    const note = Object.assign(document.createElement("div"), { className: "said-here", textContent: words });
    note.setAttribute("role", "alert");
    document.querySelector(".gradio-container").append(note);
    setTimeout(() => note.remove(), 8000);
  };

  // Judging. Before the first judgement is kept the visitor is asked, in the words that the server gives.
  const visitor = () => {
    try {
      return JSON.parse(store.getItem(VISITOR));
    } catch {
      return null;
    }
  };
  const agree = () => {
    const known = { id: visitor()?.id ?? newId(), consent: consent.version };
    store.setItem(VISITOR, JSON.stringify(known));
    return known;
  };
  const askForConsent = () =>
    new Promise((answered) => {
      const part = (tag, textContent, more = {}) => Object.assign(document.createElement(tag), { textContent, ...more });
      const dialog = part("dialog", "", { className: "consent" });
      dialog.setAttribute("aria-labelledby", "consent-title");
      const close = (known) => (dialog.remove(), answered(known));
      const keep = part("button", "Keep it", { className: "primary", onclick: () => close(agree()) });
      const decline = part("button", "Keep nothing", { onclick: () => close(null) });
      const row = part("div", "");
      row.append(keep, decline);
      dialog.append(
        part("h2", "May this be kept?", { id: "consent-title" }),
        part("p", `Kept on this server: ${consent.kept}.`),
        part("p", `For what: ${consent.purpose}.`),
        part("p", "Under “Feedback” you can see and delete it at any time. You are asked only once."),
        row,
      );
      dialog.addEventListener("cancel", () => close(null));
      document.querySelector(".gradio-container").append(dialog);
      dialog.showModal();
    });
  const visit = async (conversation = "") => {
    const known = visitor();
    const agreed = known?.consent === consent.version ? known : await askForConsent();
    return agreed && { visitor: agreed.id, conversation, consent: agreed.consent };
  };
  const typed = (before, value) => update({ value: [before, value].filter(Boolean).join("\n"), ...idle });

  // Files.
  const choose = (accept) =>
    new Promise((chosen) => {
      const input = Object.assign(document.createElement("input"), { type: "file", accept });
      input.addEventListener("change", () => chosen(input.files[0]));
      input.addEventListener("cancel", () => chosen(null));
      input.click();
    });
  const hand = (value, name) => {
    const address = URL.createObjectURL(new Blob([JSON.stringify(value, null, 1)], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  };
  const download = (conversations, name) => hand({ format: "tunesmith", version: 1, conversations }, name);
  // A conversation from a file, with what belongs there and nothing else; null where it is none.
  const cleaned = (value) => {
    const isId = (id) => typeof id === "string" && /^[\w-]{1,64}$/.test(id);
    const known = new Set([null]);
    const nodes = [];
    for (const node of Array.isArray(value?.nodes) ? value.nodes : []) {
      const { id, parent = null, role, text, thought, seconds, caption, record, verdict, of, done } = node ?? {};
      if (!isId(id) || known.has(id) || !known.has(parent) || typeof text !== "string") return null;
      known.add(id);
      if (role === "user") nodes.push({ id, parent, role, text });
      else if (role === "assistant") {
        const words = Object.entries({ thought, caption, record, verdict, of });
        const texts = words.filter(([, one]) => typeof one === "string");
        const time = typeof seconds === "number" ? { seconds } : {};
        const end = done ? { done: true } : { cut: true };
        nodes.push({ id, parent, role, text, ...Object.fromEntries(texts), ...time, ...end });
      } else return null;
    }
    if (!isId(value?.id) || !nodes.length) return null;
    const { id, title, model, settings, head, time } = value;
    const isSetting = (one) => one === null || typeof one !== "object";
    const areSettings = Array.isArray(settings) && settings.length === SETTINGS && settings.every(isSetting);
    return {
      id,
      nodes,
      title: typeof title === "string" ? title : "",
      time: typeof time === "number" ? time : Date.now(),
      model: typeof model === "string" ? model : null,
      settings: areSettings ? settings : null,
      head: known.has(head) ? head : nodes.at(-1).id,
    };
  };
  const merged = (one, other) => {
    const known = new Set(one.nodes.map(({ id }) => id));
    return { ...one, nodes: [...one.nodes, ...other.nodes.filter(({ id }) => !known.has(id))] };
  };
  // What earlier versions kept: Gradio's messages, in a row.
  const converted = ({ messages }) => {
    const nodes = [];
    for (const { role, content, metadata } of messages) {
      const [text, caption] = content.map((part) => part.text ?? "");
      const answer = role === "assistant" ? { caption, record: metadata?.id, done: true } : {};
      nodes.push({ id: newId(), parent: nodes.at(-1)?.id ?? null, role, text, ...answer });
    }
    return { id: newId(), title: "", time: Date.now(), nodes, head: nodes.at(-1)?.id };
  };

  // Marks, for Gradio's Markdown, what it would get wrong outside of code: a "<" that begins no HTML, which would
  // swallow the text after it, and single dollars around a formula, told from sums of money as Pandoc does.
  const FENCED = /(?:^|\n) {0,3}(`{3,}|~{3,})[^\n]*(?:\n[\s\S]*?(?:\n {0,3}\1[`~]*[ \t]*(?=\n|$)|$)|$)/;
  const CODE = new RegExp(`${FENCED.source}|(\`+)(?!\`)[\\s\\S]*?[^\`]\\2(?!\`)`, "g");
  const FORMULA = /(?<![\\$\w])\$(?![\s$])((?:[^$\n\\]|\\.)+?)(?<!\s)\$(?![\w$])/g;
  const VALUE = /\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=<>`]+)/.source;
  const TAG = new RegExp(`<(?=[a-z!/?])(!|/?([a-z][\\w-]*)((?:\\s+[\\w:-]+(?:${VALUE})?)*)\\s*/?>)?`, "gi");
  const VALUED = new RegExp(`\\s+[\\w:-]+${VALUE}`, "g");
  const VOID = new Set(["br", "hr", "img", "input", "wbr", "source"]);
  const BARE = new Set(["autoplay", "checked", "controls", "disabled", "hidden", "loop", "muted", "open", "required"]);
  const isTag = (whole, tag, name, attributes) => {
    const bare = attributes.replace(VALUED, "").trim();
    if (bare && !bare.split(/\s+/).every((one) => BARE.has(one))) return false;
    return tag.startsWith("</") ? whole.includes(`<${name}`) : VOID.has(name) || whole.includes(`</${name}>`);
  };
  const isAddress = (text) => /^<(https?:|mailto:|[\w.+-]+@)/i.test(text);
  const prose = (text, whole) =>
    text
      .replace(TAG, (tag, _, name, attributes = "", at) => {
        const kept = name ? isTag(whole, tag, name.toLowerCase(), attributes.toLowerCase()) : isAddress(text.slice(at));
        return kept ? tag : `<${MARK}${tag.slice(1)}`;
      })
      .replace(FORMULA, `$${MARK}$1${MARK}$`);
  const marked = (text) => {
    if (!/[<$]/.test(text)) return text;
    const lower = text.toLowerCase();
    let done = 0;
    let out = "";
    for (const code of text.matchAll(CODE)) {
      out += prose(text.slice(done, code.index), lower) + code[0];
      done = code.index + code[0].length;
    }
    return out + prose(text.slice(done), lower);
  };
  const seen = new WeakMap(); // of each node: [text, marked]
  const markedOf = (node, key) => {
    const known = seen.get(node) ?? {};
    if (known[key]?.[0] !== node[key]) seen.set(node, { ...known, [key]: [node[key], marked(node[key])] });
    return seen.get(node)[key][1];
  };
  const plain = (text) => text.replaceAll(MARK, "");

  // What Gradio draws, made right: a direction for each block, names for what has none, and a line below each turn.
  let drawing = false;
  const soon = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      finish();
    });
  };
  const set = (selector, name, value) => {
    for (const element of document.querySelectorAll(selector)) {
      const text = typeof value === "function" ? value(element) : value;
      if (element.getAttribute(name) !== text) element.setAttribute(name, text);
    }
  };
  const finish = () => {
    set(".md > :not(.code_wrap), #conversations label span", "dir", "auto");
    set("#message textarea, #question textarea, #opened input, .edit-textarea", "dir", "auto");
    set(".md pre, .md .katex", "dir", "ltr");
    set(".md pre", "tabindex", "0");
    set(".md input[type=checkbox]", "aria-label", (box) => box.parentElement.textContent.trim() || "Task");
    set("#chat .message [data-testid], #chat .examples", "role", "group");
    set(".submit-button", "aria-label", "Ask");
    set(".stop-button", "aria-label", "Stop");
    set("#chat .thought-group .title", "aria-expanded", (title) => String(title.classList.contains("expanded")));
    set("#chat .thought-group .arrow", "inert", ""); // a button without a name, within one that has it
    const groups = turns.reduce((groups, node) => {
      if (groups.at(-1)?.role === node.role) groups.pop();
      return [...groups, node];
    }, []);
    document.querySelectorAll("#chat .message-row").forEach((row, place) => underline(row, groups[place]));
  };
  const underline = (row, node) => {
    const line = row.querySelector(".below") ?? Object.assign(document.createElement("div"), { className: "below" });
    const ids = siblings.get(node?.id) ?? [];
    const place = ids.indexOf(node?.id);
    const key = [node?.id, node?.caption, place, ids.length].join("|");
    if (line.dataset.key === key) return;
    line.dataset.key = key;
    line.replaceChildren(...(node?.caption ? [span(node.caption)] : []));
    if (ids.length > 1) {
      const [earlier, later] = [[-1, "‹", "Earlier version"], [1, "›", "Later version"]].map(([step, sign, name]) => {
        const button = Object.assign(document.createElement("button"), { textContent: sign, title: name });
        button.setAttribute("aria-label", name);
        button.disabled = !ids[place + step];
        button.addEventListener("click", () => turn(ids[place + step]));
        return button;
      });
      line.append(earlier, span(`${place + 1}/${ids.length}`), later);
    }
    if (!line.isConnected) row.querySelector(".flex-wrap").append(line);
  };
  const span = (text) => Object.assign(document.createElement("span"), { textContent: text });
  const turn = (id) => {
    const conversation = read(open);
    if (under || !conversation) return;
    show(conversation, leaf(conversation, id));
    change(open, (conversation) => (conversation.head = head));
    press("redraw");
  };
  // Nothing is loaded from elsewhere for an answer (protection.py): its images become links.
  const link = (image) => {
    const link = document.createElement(image.closest("a") ? "span" : "a");
    const address = { href: image.src, target: "_blank", rel: "noopener noreferrer" };
    image.replaceWith(Object.assign(link, address, { textContent: image.alt || image.src }));
  };
  const isForeign = (address) => /^https?:/.test(address) && new URL(address).origin !== location.origin;
  addEventListener("error", ({ target }) => target.matches?.(".md img") && isForeign(target.src) && link(target), true);

  // The box is emptied with the key that sends, not when Gradio comes to it: what is typed next is the next message.
  let sent = null;
  const type = (box, value) => {
    box.value = value;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };
  addEventListener("keydown", ({ key, shiftKey, isComposing, target: box }) => {
    const sends = key === "Enter" && !shiftKey && !isComposing && box.matches?.("#message textarea");
    if (!sends || under || sent !== null || !box.value.trim()) return;
    sent = box.value;
    type(box, "");
    setTimeout(() => {
      if (sent !== null) type(box, sent + box.value); // Gradio has lost the server, and sends nothing
      sent = null;
    }, 5000);
  }, true);

  // Gradio's copy button takes all that stands in a turn, thoughts and marks too: what was said replaces it.
  let copied = null;
  addEventListener("click", ({ target }) => {
    const panel = target.closest?.("#chat .message-buttons");
    const row = panel?.previousElementSibling;
    const isCopy = panel && target.closest("button") === panel.querySelector("button");
    if (!isCopy || row.querySelector(".edit-textarea")) return;
    const id = row.querySelector(".below")?.dataset.key.split("|")[0];
    copied = turns.find((node) => node.id === id)?.text ?? null;
    setTimeout(() => {
      if (copied !== null) navigator.clipboard?.writeText(copied);
      copied = null;
    });
  }, true);
  addEventListener("copy", (event) => {
    const words = copied ?? plain(String(getSelection()));
    if (copied === null && words === String(getSelection())) return;
    event.clipboardData.setData("text/plain", words);
    event.preventDefault();
  });

  addEventListener("pagehide", () => under && save());
  addEventListener("storage", ({ key }) => {
    if (key !== null && !key.startsWith(PREFIX)) return;
    stale ||= key === null || key === PREFIX + open;
    press("redraw");
  });
  new MutationObserver(soon).observe(document, { childList: true, subtree: true });

  return {
    marked, // for tests
    start(served, asked, earlier) {
      [models, consent] = [new Map(Object.entries(served.names)), asked];
      (earlier ?? []).toReversed().map(converted).filter(({ nodes }) => nodes.length).forEach(write);
      const id = tab.getItem(OPEN);
      const shown = id && read(id) ? this.open(id) : whole();
      return [...shown, earlier?.length ? [] : undefined];
    },
    // The server has other models than at its start, perhaps: picked is what is in the place of those that were.
    learn({ names, choices, default: first, candidate }, ...picked) {
      models = new Map(Object.entries(names));
      const kept = present(open && read(open)?.model);
      return picked.map((name, place) =>
        update({
          choices: place
            ? choices.map(([, model]) => [model, model])
            : choices.filter(([, model]) => model !== candidate), // it is not to be known who answers
          value: (place === 0 && kept) || (place === 2 && candidate) || present(name) || first,
        }));
    },
    // Conversations.
    open(id) {
      const conversation = read(id);
      if (id === open || !conversation) return whole();
      leave();
      show(conversation, conversation.head);
      resume();
      const { model, settings } = conversation;
      settled = Date.now() + 1000;
      return whole({ ...(present(model) && { model: present(model) }), ...(settings && { settings }) });
    },
    begin() {
      leave();
      show(null);
      return whole();
    },
    remove() {
      leave();
      store.removeItem(PREFIX + open);
      show(null);
      return whole();
    },
    rename(name) {
      const named = open && read(open);
      if (!named || name.trim() === title(named)) return []; // it was shown, not changed
      change(open, (conversation) => (conversation.title = name.trim()));
      return view({ list: list() });
    },
    search(words) {
      sought = words.trim().toLowerCase();
      return view({ list: list() });
    },
    keep(model, ...settings) {
      if (open && Date.now() > settled) change(open, (one) => Object.assign(one, { model, settings }));
      return [];
    },
    redraw() {
      const conversation = open && read(open);
      if (under) return view({ list: list() });
      if (open && !conversation) show(null); // another tab has deleted it
      else if (stale) {
        const ahead = path(conversation, conversation.head).some(({ id }) => id === head);
        show(conversation, ahead ? conversation.head : head);
      }
      stale = false;
      return whole({ why: undefined });
    },
    exportOpen: () => (download([read(open)], `${title(read(open)).replace(/[^\p{L}\p{N}]+/gu, "-")}.json`), []),
    exportAll: () => (download(all(), "conversations.json"), []),
    async importFile() {
      const file = await choose(".json,application/json");
      if (!file) return [];
      const value = await file.text().then(JSON.parse).catch(() => null);
      const found = value?.format === "tunesmith" && Array.isArray(value.conversations) ? value.conversations : [];
      const conversations = found.map(cleaned).filter(Boolean);
      for (const one of conversations) write(read(one.id) ? merged(read(one.id), one) : one);
      prune();
      const lost = found.length - conversations.length;
      const said = `${conversations.length} imported${lost ? `, ${lost} cannot be read` : ""}.`;
      say(found.length ? said : `${file.name} is no export of conversations.`);
      return whole();
    },
    // Questions and answers.
    ask(value, ...settings) {
      const question = sent ?? value;
      const emptied = sent === null ? { value: "" } : {};
      sent = null;
      if (under || !question.trim()) return [];
      askFor({ parent: head, question, returned: question }, settings);
      return whole({ message: update({ ...emptied, ...busy }) });
    },
    retry(...settings) {
      const answer = turns.findLast(({ role }) => role === "assistant");
      if (under || !answer) return [];
      askFor({ parent: answer.parent }, settings);
      return whole();
    },
    goOn(...settings) {
      const answer = turns.at(-1);
      if (under || !answer?.cut) return [];
      askFor({ parent: answer.parent, goesOn: answer, replaces: answer.id }, settings);
      return whole();
    },
    // Gradio has changed the message that was edited: what differs from the node is a new version of it.
    edit(messages, ...settings) {
      if (under) return whole();
      const now = new Map(messages.map(({ metadata, content }) => [metadata?.id, plain(content[0].text)]));
      const node = turns.find(({ id, text }) => now.has(id) && now.get(id) !== plain(text));
      if (!node) return whole();
      if (node.role === "user") askFor({ parent: node.parent, question: now.get(node.id) }, settings);
      else {
        const conversation = read(open);
        const { thought, seconds, caption } = node;
        const version = { id: newId(), parent: node.parent, role: "assistant", text: now.get(node.id), done: true };
        const of = node.record ?? node.of;
        const about = { thought, seconds, of, caption: caption?.replace(/( · edited)?$/, " · edited") };
        conversation.nodes.push({ ...version, ...about });
        conversation.head = version.id;
        write(conversation);
        show(conversation, version.id);
        edited = { record: of, text: version.text };
        if (consent && of) press("edited");
      }
      return whole();
    },
    undo(value) {
      const question = turns.findLast(({ role }) => role === "user");
      if (under || !question) return [];
      const conversation = read(open);
      show(conversation, question.parent);
      change(open, (conversation) => (conversation.head = head));
      return whole({ message: typed(question.text, value) });
    },
    async attach(value) {
      const file = await choose("");
      if (!file) return [];
      const bytes = file.size <= FILE_MOST ? await file.arrayBuffer() : null;
      if (!bytes) return say(`${file.name} has ${file.size} bytes; ${FILE_MOST} at most can be attached.`), [];
      try {
        const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
        if (text.includes("\0")) throw new TypeError();
        const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
        const fence = "`".repeat(longest + 1);
        const block = `${file.name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}\n`;
        return view({ message: update({ value: value ? `${value}\n\n${block}` : block }) });
      } catch {
        return say(`${file.name} is no text in UTF-8.`), [];
      }
    },
    // What the server asks and tells.
    asked: () => under?.request ?? null,
    asking: () => under?.id ?? null,
    left: () => gone,
    judging: async () => ({
      shown: turns.flatMap((node) => drawn(node).map(() => node.record ?? "")),
      visit: await visit(open),
    }),
    edited: async () => ({ ...edited, visit: await visit(open) }),
    visit: () => visit(), // of what is no conversation, or has been judged before
    // What the visitor has said.
    visitor: () => visitor()?.id ?? null,
    download: (records) => {
      if (records) hand(records, "feedback.json");
      return [];
    },
    forgot(ids) {
      for (const { id } of ids ? all() : [])
        change(id, ({ nodes }) => nodes.forEach((node) => ids.includes(node.record) && delete node.verdict));
      stale = true;
      press("redraw");
      return [];
    },
    reset: () => (store.removeItem(VISITOR), []),
    hear(told, value) {
      if (told?.judged) {
        const judge = (node) => node.record === told.judged && (node.verdict = told.verdict);
        turns.forEach(judge);
        if (open) change(open, ({ nodes }) => nodes.forEach(judge));
        return view({ chat: chat() });
      }
      if (told?.refused) return view({ chat: chat() });
      if (!under || told?.id !== under.id) return [];
      const { thought = "", text = "", thinking, thought_seconds: seconds, caption, record, by, done } = told;
      if (done || text !== under.base.content || thought !== under.base.thought) {
        if (caption) under.fields = { thought, text, seconds, caption, record, by, done };
      }
      if (told.ended) return close(value);
      Object.assign(turns.at(-1), under.fields, { thinking });
      if (Date.now() - under.saved > SAVE_MS) save();
      const begun = performance.now();
      if (begun < rested) return [];
      requestAnimationFrame(() => setTimeout(() => (rested = 3 * performance.now() - 2 * begun)));
      return view({ chat: chat() });
    },
    compare: (sides) =>
      (sides ?? []).map((side) => {
        const { thought, text = "", thinking } = side ?? {};
        const [state, name] = thinking ? [" open", "Thinking…"] : ["", "Thought"];
        const folded = `<details${state}><summary>${name}</summary>\n\n${marked(thought ?? "")}\n\n</details>\n\n`;
        return (thought ? folded : "") + marked(text);
      }),
    fail: (value) => (under ? close(value) : []),
    widen: () => [{ __type__: "update", open: innerWidth > 1000 }],
  };
})();
