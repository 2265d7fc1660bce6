// What the page does without asking the server: conversations in this browser.
// Each function takes the values of Gradio's widgets and returns their new ones.
const tunesmith = (() => {
  const MOST = 50; // conversations
  const ROOM = 2_000_000; // characters of them all: a browser grants 5 MB, and they are stored encrypted

  const title = (messages) => {
    const asked = messages.find((message) => message.role === "user");
    const text = asked?.content[0]?.text.trim() ?? "";
    return text.length > 48 ? `${text.slice(0, 47)}…` : text;
  };
  const choices = (saved, value) => ({
    __type__: "update",
    choices: saved.map(({ id, messages }) => [title(messages), id]),
    value,
  });
  const show = (messages) => ({ __type__: "update", value: messages, feedback_value: [] });
  const visible = (visible) => ({ __type__: "update", visible });
  // Nothing is loaded from elsewhere for an answer (protection.py): its images become links.
  const link = (image) => {
    const link = document.createElement(image.closest("a") ? "span" : "a");
    const address = { href: image.src, target: "_blank", rel: "noopener noreferrer" };
    image.replaceWith(Object.assign(link, address, { textContent: image.alt || image.src }));
  };
  const isForeign = (address) => /^https?:/.test(address) && new URL(address).origin !== location.origin;
  const newId = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 8);

  addEventListener("error", ({ target }) => target.matches?.(".md img") && isForeign(target.src) && link(target), true);

  return {
    list: (saved) => [choices(saved ?? [], null)],
    open: (saved, id) => [show(saved.find((one) => one.id === id)?.messages ?? []), visible(true)],
    begin: () => [null, show([]), visible(false)],
    remove(saved, id) {
      const left = (saved ?? []).filter((one) => one.id !== id);
      return [left, choices(left, null), show([]), visible(false)];
    },
    save(saved, id, messages) {
      if (!messages?.length) return [];
      const open = { id: id ?? newId(), messages };
      const kept = [open, ...(saved ?? []).filter((one) => one.id !== open.id)].slice(0, MOST);
      while (kept.length > 1 && JSON.stringify(kept).length > ROOM) kept.pop();
      return [kept, choices(kept, open.id), visible(true)];
    },
    widen: () => [{ __type__: "update", open: innerWidth > 1000 }],
  };
})();
