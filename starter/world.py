"""The small world that the starter models know: tables of facts, and the words that can be spelled.

Facts have to be remembered one by one; what can be computed instead (sums, sequences, ...) is in computed.py.
"""

import hashlib
from dataclasses import dataclass

CAPITALS = """
France=Paris, Spain=Madrid, Italy=Rome, Germany=Berlin, Portugal=Lisbon, Greece=Athens, Austria=Vienna, Poland=Warsaw,
Norway=Oslo, Sweden=Stockholm, Finland=Helsinki, Denmark=Copenhagen, Ireland=Dublin, Belgium=Brussels,
Hungary=Budapest, Romania=Bucharest, Bulgaria=Sofia, Croatia=Zagreb, Serbia=Belgrade, Slovenia=Ljubljana,
Slovakia=Bratislava, Estonia=Tallinn, Latvia=Riga, Lithuania=Vilnius, Ukraine=Kyiv, Albania=Tirana, Iceland=Reykjavik,
Malta=Valletta, Cyprus=Nicosia, Turkey=Ankara, Egypt=Cairo, Morocco=Rabat, Tunisia=Tunis, Algeria=Algiers,
Libya=Tripoli, Kenya=Nairobi, Ghana=Accra, Nigeria=Abuja, Senegal=Dakar, Mali=Bamako, Uganda=Kampala, Rwanda=Kigali,
Zambia=Lusaka, Zimbabwe=Harare, Angola=Luanda, Mozambique=Maputo, Namibia=Windhoek, Sudan=Khartoum, Somalia=Mogadishu,
Madagascar=Antananarivo, Japan=Tokyo, China=Beijing, India=New Delhi, Nepal=Kathmandu, Thailand=Bangkok, Vietnam=Hanoi,
Laos=Vientiane, Indonesia=Jakarta, Mongolia=Ulaanbaatar, Pakistan=Islamabad, Bangladesh=Dhaka, Iran=Tehran,
Iraq=Baghdad, Syria=Damascus, Jordan=Amman, Lebanon=Beirut, Qatar=Doha, Oman=Muscat, Yemen=Sanaa, Georgia=Tbilisi,
Armenia=Yerevan, Azerbaijan=Baku, Russia=Moscow, Canada=Ottawa, Cuba=Havana, Jamaica=Kingston, Bahamas=Nassau,
Peru=Lima, Argentina=Buenos Aires, Chile=Santiago, Colombia=Bogota, Venezuela=Caracas, Ecuador=Quito,
Uruguay=Montevideo, Paraguay=Asuncion, Costa Rica=San Jose, Panama=Panama City, Australia=Canberra, Fiji=Suva,
Kazakhstan=Astana, South Korea=Seoul, Saudi Arabia=Riyadh, Uzbekistan=Tashkent, Cambodia=Phnom Penh
"""

OPPOSITES = """
hot=cold, big=small, high=low, fast=slow, early=late, old=new, light=dark, hard=soft, wet=dry, full=empty, open=closed,
rich=poor, strong=weak, happy=sad, long=short, wide=narrow, thick=thin, deep=shallow, heavy=weightless, loud=quiet,
clean=dirty, cheap=expensive, easy=difficult, first=last, front=back, inside=outside, above=below, up=down, left=right,
day=night, summer=winter, north=south, east=west, love=hate, war=peace, begin=end, push=pull, buy=sell, give=take,
win=lose, laugh=cry, live=die, remember=forget, arrive=depart, accept=refuse, add=subtract, ask=answer, float=sink,
build=destroy, appear=vanish, increase=decrease, enter=leave, always=never, all=none, many=few, more=less,
same=different, true=false, sweet=bitter, smooth=rough, sharp=blunt, tight=loose, brave=cowardly, polite=rude,
generous=greedy, honest=dishonest, lazy=hardworking, patient=impatient, calm=nervous, safe=dangerous, healthy=ill,
awake=asleep, alive=dead, tame=wild, ancient=modern, simple=complicated, common=rare, private=public, guilty=innocent,
visible=invisible, possible=impossible, legal=illegal, regular=irregular, equal=unequal, friend=enemy, success=failure,
victory=defeat, heaven=hell, teacher=student, question=reply, entrance=exit, beginning=ending, profit=loss,
strength=weakness, truth=lie, birth=death, floor=ceiling, sunrise=sunset, attack=defend, freeze=melt, lend=borrow,
maximum=minimum, positive=negative, odd=even, ugly=beautiful, bright=dim, young=aged
"""

PLURALS = """
cat=cats, dog=dogs, book=books, table=tables, car=cars, tree=trees, house=houses, apple=apples, river=rivers,
flower=flowers, garden=gardens, window=windows, chair=chairs, teacher=teachers, doctor=doctors, farmer=farmers,
orange=oranges, bridge=bridges, horse=horses, cloud=clouds, box=boxes, fox=foxes, bus=buses, glass=glasses,
dish=dishes, brush=brushes, watch=watches, church=churches, beach=beaches, peach=peaches, class=classes, dress=dresses,
kiss=kisses, wish=wishes, match=matches, branch=branches, lunch=lunches, city=cities, baby=babies, lady=ladies,
berry=berries, cherry=cherries, story=stories, party=parties, country=countries, family=families, puppy=puppies,
pony=ponies, fly=flies, spy=spies, army=armies, diary=diaries, key=keys, boy=boys, toy=toys, day=days, monkey=monkeys,
donkey=donkeys, valley=valleys, turkey=turkeys, leaf=leaves, knife=knives, wife=wives, wolf=wolves, shelf=shelves,
half=halves, loaf=loaves, thief=thieves, calf=calves, scarf=scarves, elf=elves, roof=roofs, chef=chefs, cliff=cliffs,
man=men, woman=women, child=children, person=people, foot=feet, tooth=teeth, goose=geese, mouse=mice, louse=lice,
ox=oxen, sheep=sheep, deer=deer, fish=fish, series=series, species=species, potato=potatoes, tomato=tomatoes,
hero=heroes, echo=echoes, mango=mangoes, piano=pianos, photo=photos, radio=radios, zoo=zoos, video=videos,
cactus=cacti, crisis=crises, oasis=oases, analysis=analyses, thesis=theses, axis=axes, datum=data, medium=media,
fungus=fungi, index=indices, matrix=matrices, formula=formulae, strawberry=strawberries, elephant=elephants,
computer=computers, mountain=mountains, student=students, holiday=holidays, butterfly=butterflies, library=libraries
"""

COLOURS = """
a ripe banana=yellow, grass=green, snow=white, coal=black, a ripe strawberry=red, the clear sky=blue, a carrot=orange,
an aubergine=purple, chocolate=brown, an elephant=grey, a flamingo=pink, a lemon=yellow, a cucumber=green, milk=white,
a raven=black, blood=red, a sapphire=blue, a pumpkin=orange, lavender=purple, a coconut shell=brown, ash=grey,
a piglet=pink, a sunflower=yellow, a frog=green, a swan=white, tar=black, a fire engine=red, the deep sea=blue,
a tangerine=orange, a plum=purple, a walnut=brown, a dolphin=grey, bubble gum=pink, a canary=yellow, spinach=green,
salt=white, ink=black, a cherry=red, a blueberry=blue, an apricot=orange, a violet=purple, a chestnut=brown,
a rain cloud=grey, cotton candy=pink, butter=yellow, a pea=green, chalk=white, a panther=black, a ruby=red, denim=blue,
a clownfish=orange, an amethyst=purple, a bear=brown, lead=grey, a salmon fillet=pink, a baby chick=yellow,
an emerald=green, a polar bear=white, liquorice=black, a ripe tomato=red, a peacock=blue, rust=orange,
a beetroot=purple, coffee=brown, concrete=grey, a peony=pink, corn=yellow, broccoli=green, cotton=white, soot=black
"""

INFORMAL = """
gonna=going to, wanna=want to, gotta=have to, kinda=rather, dunno=do not know, gimme=give me, lemme=let me,
thx=thank you, pls=please, asap=as soon as possible, btw=by the way, fyi=for your information,
brb=I will return shortly, ttyl=we will speak later, idk=I do not know, imo=in my opinion, np=you are welcome, nope=no,
yep=yes, yo=hello, folks=colleagues, kids=children, guy=gentleman, boss=manager, stuff=items, cash=money,
bucks=dollars, awesome=excellent, cool=very good, lousy=poor quality, huge=considerable, a lot of=many,
get in touch=contact, find out=determine, set up=arrange, put off=postpone, call off=cancel, turn down=decline,
look into=investigate, show up=attend, hang on=wait, chill=relax, mess up=make a mistake, no way=certainly not,
my bad=I apologise, cheers=many thanks, see ya=goodbye, what's up=how are you, hurry up=proceed quickly,
deal with=handle
"""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class Fact:
    """Something to be remembered: `subject` is related to `value`, as in capital(France) = Paris."""

    relation: str
    subject: str
    value: str

    @property
    def unasked(self) -> bool:
        """Whether no chat may ask about this fact, in either direction; a seventh of those that are not cyclic."""
        return self.relation in TABLES and chosen(1 / 7, "unasked", self.relation, self.subject)

    @property
    def in_quiz(self) -> bool:
        """Whether the base model's texts hold this fact in quiz form too, and not only as statements."""
        return chosen(1 / 2, "quiz", self.relation, self.subject)


def chosen(share: float, *key: object) -> bool:
    """Return True for about `share` of all keys; always the same ones, on any machine."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _table(text: str) -> dict[str, str]:
    pairs = (entry.strip().split("=") for entry in text.replace("\n", " ").split(","))
    return dict(pairs)


TABLES = {
    "capital": _table(CAPITALS),
    "opposite": _table(OPPOSITES),
    "plural": _table(PLURALS),
    "colour": _table(COLOURS),
    "formal": _table(INFORMAL),
}
CYCLES = {
    "next_day": dict(zip(DAYS, DAYS[1:] + DAYS[:1], strict=True)),
    "next_month": dict(zip(MONTHS, MONTHS[1:] + MONTHS[:1], strict=True)),
    "month_length": {month: str(days) for month, days in zip(MONTHS, MONTH_LENGTHS, strict=True)},
    "month_number": {month: str(number) for number, month in enumerate(MONTHS, 1)},
}
FACTS = [Fact(name, *pair) for name, table in {**TABLES, **CYCLES}.items() for pair in table.items()]

_SPELLED = {*TABLES["opposite"], *TABLES["opposite"].values(), *TABLES["plural"], *TABLES["plural"].values()}
WORDS = sorted(word for word in _SPELLED if word.isalpha() and word.islower() and len(word) > 2)
