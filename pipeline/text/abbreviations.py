"""Words with a full stop that are no end of a sentence, and the words that a sentence begins with: data.

English, German, French, Spanish, Italian, Portuguese and Dutch; the most frequent ones of Swedish, Danish, Norwegian,
Polish, Czech, Russian, Turkish, Greek, Hindi and Indonesian. Written without the last stop, in small letters.
"""

from __future__ import annotations

import re
from enum import Enum

_BEFORE_MORE = """
    mr mrs ms mx dr drs prof profs rev capt cpl sgt adm cmdr insp supt messrs msgr mgr
    e.g i.e cf viz vs approx ca incl excl resp

    hr hrn frl fr dipl geb verh ehem evtl evt ggf inkl exkl zzgl abzgl bzw sog vgl bspw insb insbes allg entspr einschl
    ausschl wg zzt dt engl frz österr schweiz kath bes bzgl betr hrsg jew lfd mögl nördl östl südl westl
    öffentl staatl städt stellv techn teilw tlw versch wiss zus z.b d.h u.a i.d.r z.t z.zt u.u d.i o.ä s.o s.u v.a
    i.a i.b u.ä

    mme mmes mlle mlles mm mgr pr ste env c.-à-d p.ex boul bd

    sr sra sres sras srta srtas dra sta sto dn d.ª dña profa lic avda aprox p.ej gral

    sig sigg sig.ra sig.na sig.re dott dott.ssa prof.ssa avv ing geom egr spett cfr p.es

    exmo exma ilmo ilma eng engª v.exa p.e

    dhr mevr mw mej bijv bv m.a.w d.w.z o.a m.b.t m.n n.a.v t.a.v t.g.v t.n.v t.o.v vgl v.d i.p.v

    bl.a t.ex f.eks dvs f.kr np tzn tj inż ul św např tzn č nám т.е т.к г-н г-жа ул см им напр проф акад доц гл
    vb örn doç sn κ κα κος δρ π.χ δηλ βλ डॉ प्रो रु श्री सु पं dkk yth
"""
_BEFORE_NUMBERS = """
    no nos nr nrs nro núm num n° nº fig figs vol vols p pp pg pag pág págs pagg ch chap sec sect eq ex ed op v ver art
    arts max máx min mín mind par para ext ref refs réf réfs abs abb kap tab taf bd s ziff zi pos rn lit
    tel fax app apt ste zimmer hsnr str pl blz hfdst cap caps n nn
    стр рис тел д кв корп kl ст № cad sok sf lk jl
"""
_BEFORE_SMALL_LETTERS = """
    etc usw usf ecc enz osv itd itp atd apod u.s.w u.v.m u.dgl m.m etc.pp т.д т.п др vd κ.λπ κ.ά e.d e.a e.v.a al
"""
_UNITS = "kg km cm mm ml min sec sek hr hrs lb lbs oz ft yd yds mi gal qt pt tsp tbsp std h m g l t s d руб коп"
_TIMES = "a.m p.m"
_CALENDAR = """
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun
    jän mär mrz okt dez mo di mi do sa so janv févr avr juil déc lun jeu ven dim
    ene abr ago dic mié jue vie sáb mag giu lug set ott mer gio fev out mrt
"""
_OFTEN_LAST = """
    inc ltd co corp bros llc jr sr st ave blvd rd ln hwy dept univ assn est gov mt ft col gen sen rep pres hon det maj
    gem ir arch rag gent ill mio mrd tsd std sek
    jh str hbf bhf stk pkt pl a.d b.c b.c.e ph.d m.d cía s.a s.p.a s.r.l ee.uu ud uds vd vds ltda cia av г гг
    тыс млн млрд a.c d.c jl jh n.chr v.chr
"""
_ORDINALS_FOLLOW = """
    der die das den dem des am im vom zum zur beim bis ab seit jeder jede jeden jedem jedes ein eine einen einem einer
    eines unser unsere unserem unseren mein meine meinem meinen sein seine seinem seinen ihr ihre ihrem ihren dieser
    diese diesem diesen dieses vor nach kg den det
"""
_ORDINALS_PRECEDE = """
    jahrhundert jahrhunderts jahrtausend weltkrieg weltkriegs klasse stock stockwerk etage geburtstag kapitel platz
    quartal liga bundesliga runde halbjahr semester advent mal tag woche monat jahr jh stunde minute person auflage
    januar jänner februar märz april mai juni juli august september oktober november dezember
    januari februari march mars maart mei maj juin juillet août enero febrero marzo abril mayo junio julio agosto
    septiembre octubre noviembre diciembre gennaio febbraio aprile maggio giugno luglio settembre ottobre novembre
    dicembre janeiro fevereiro março maio junho julho setembro outubro novembro dezembro january february june july
    october december
"""
_DAYS = """
    monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun
    january february march april may june july august september october november december
    est edt cst cdt mst mdt pst pdt gmt utc cet cest bst et ct mt pt eastern central mountain pacific
"""
_STARTERS = """
    the this that these those there here he she it we they you if when while then but and or so because however also for
    in on at to from with please thanks thank yes not what which who where why how is are was were do does did can could
    would should let our your my his her its their as after before now today tomorrow just only some many most all any
    each every both once since until unless although though call ask see come have has maybe perhaps sorry hello

    der die das den dem des ein eine einen er sie es wir ihr ich du man und aber oder denn doch dann danach dort da wenn
    weil ob als nach vor bei mit für im am an auf aus zu zum zur bitte danke ja nein nicht auch noch nur jetzt heute
    morgen wie was wer wo wann warum welche ist sind hat haben kann können diese dieser dieses unser unsere mein meine
    ihre sein seine alle außerdem deshalb leider gerne

    il elle ils elles on nous vous je tu ce cette ces cela et mais ou donc si quand puis dans sur à pour avec après
    avant oui non merci voici voilà mon ma mes notre nos votre vos son sa ses leur qui que où comment pourquoi est le la
    les un une des

    el los las lo son hay yo tú él ella ellos ellas nosotros usted ustedes sí no pero y o porque cuando donde como qué
    quién cómo cuándo dónde en con por para su sus mi mis este esta esto estos estas ese esa eso también además ahora
    hoy mañana gracias luego después

    gli ed è ma se me te dove perché che chi cosa io lui lei noi voi loro questo questa quello quella nel poi anche
    ora oggi domani grazie ci

    os as um uma é são ele ela eles nós eu você vocês não sim mas quem em na com seu sua isso também agora hoje obrigado
    depois

    het een hij zij ze wij jij je ik er dit dat deze en maar of want dan daar hier na voor met op aan bij van te om geen
    nee ook nu vandaag wat wie waar hoe waarom zijn heeft kan mijn uw onze graag dank bel

    он она оно они мы вы я ты это и но а если когда потом в на с для по не да нет что кто как где почему
"""
_NAME_PARTICLES = "le la les los las du des de da di del el van von der den a an o as os du don do il lo y e i"
_OTHER_WORDS = "mar sat sun mon set out mag ago do so di mi mo mer sept"  # in the calendar if they are capital
_NO_VOWEL_WORDS = "hm hmm mm mmm mhm pst psst shh sh brr grr tsk pfft nth zzz"


class Kind(Enum):
    """What a word with a full stop is."""

    WORD = "a word"
    PREFIX = "something always follows it: a title, e.g."
    NUMBERED = "No, Fig: a number follows"
    LAST = "etc: the sentence ends with it unless a small letter follows"
    UNIT = "the same behind a number"
    TIME = "a.m.: the same, but a day may follow"
    CALENDAR = "Jan: a number may follow"
    SHORT = "any other abbreviation: the sentence ends if the next word is one that sentences begin with"
    INITIAL = "one letter"


_KINDS: dict[str, Kind] = {}
for _words, _kind in (
    (_OFTEN_LAST, Kind.SHORT),
    (_CALENDAR, Kind.CALENDAR),
    (_BEFORE_NUMBERS, Kind.NUMBERED),
    (_UNITS, Kind.UNIT),
    (_TIMES, Kind.TIME),
    (_BEFORE_SMALL_LETTERS, Kind.LAST),
    (_BEFORE_MORE, Kind.PREFIX),
):
    _KINDS.update(dict.fromkeys(_words.split(), _kind))

STARTERS = frozenset(_STARTERS.split())  # a sentence may begin with them; hardly a name
NAME_PARTICLES = frozenset(_NAME_PARTICLES.split())  # of these, those that stand in names
AFTER_TIMES = frozenset(_DAYS.split())
ORDINALS_FOLLOW = frozenset(_ORDINALS_FOLLOW.split())  # "am 3. Versuch"
ORDINALS_PRECEDE = frozenset(_ORDINALS_PRECEDE.split())  # "3. Oktober"
_UNIT_WORDS = frozenset(_UNITS.split())
_WORDS_TOO = frozenset(_OTHER_WORDS.split())
_NO_VOWELS = frozenset(_NO_VOWEL_WORDS.split())
_DOTTED = re.compile(r"(?:[^\W\d_]{1,2}\.)+[^\W\d_]{1,2}")  # U.S, B.B.C, v.Chr
_VOWEL = re.compile(r"[aeiouyà-æè-ïò-öø-ýāăąēĕėęěĩīĭįıōŏőœũūŭůűųаеёиоуыэюяіїєαεηιουωάέήίόύώ]")
_LATIN = re.compile(r"[a-zß-ž]+")


def kind_of(word: str, *, is_after_number: bool = False) -> Kind:
    """What a word is that a full stop follows; `is_after_number`: it stands behind digits, as a unit does."""
    small = word.casefold()
    kind = _KINDS.get(small)
    if is_after_number and small in _UNIT_WORDS and small == word:
        return Kind.UNIT
    if len(word) == 1 and word.isalpha():
        return Kind.INITIAL
    if kind is Kind.CALENDAR and small in _WORDS_TOO and small == word and not is_after_number:
        return Kind.WORD
    if kind is not None:
        return Kind.SHORT if kind is Kind.UNIT else kind
    if _DOTTED.fullmatch(word) or small.endswith("str"):  # Hauptstr
        return Kind.SHORT
    is_consonants = bool(_LATIN.fullmatch(small)) and not _VOWEL.search(small) and word != word.upper()
    return Kind.SHORT if is_consonants and small not in _NO_VOWELS else Kind.WORD
