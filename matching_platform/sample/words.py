"""What the sample company's world is made of, as data: countries, names, number forms and wording. All invented."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Country:
    """Money, accounts and language of a country; a word is drawn from a tuple wherever there are several."""

    currency: str
    rate: float  # Polish złoty for one unit: only ratios matter, to keep amounts of all countries comparable.
    bank: str  # Letters that open the national account number, for an IBAN that passes its check.
    digits: int  # Digits that follow them.
    legal: tuple[str, ...]
    sale: str  # How a company at home there numbers its own sales.
    credit: str  # Prefix of a credit note's number.
    invoice: tuple[str, ...]  # What a payer writes before a number.
    joiner: str
    span: str
    part: str
    thanks: str
    vague: tuple[str, ...]  # Titles that name no invoice.
    refund: tuple[str, ...]
    other: dict[str, tuple[str, ...]]  # Titles of transfers that pay no invoice, by `OTHER` kind.


COUNTRIES: Final = {
    "PL": Country(
        currency="PLN",
        rate=1.0,
        bank="",
        digits=24,
        legal=("Sp. z o.o.", "S.A.", "sp. j.", "Sp. z o.o. Sp. k."),
        sale="FV/{yyyy}/{mm}/{n:04}",
        credit="KOR/",
        invoice=("FV", "faktura", "za fakturę nr", "zapłata za fakturę", "fakt.", "dot. FV", ""),
        joiner=" i ",
        span="od {} do {}",
        part="rata",
        thanks="dziękujemy",
        vague=("zapłata", "należność", "za usługi", "zgodnie z umową", "przelew", "za towar", "wg zamówienia"),
        refund=("zwrot podwójnej wpłaty", "zwrot nadpłaty", "zwrot"),
        other={
            "own": ("przelew własny", "przeksięgowanie między rachunkami"),
            "salary": ("wynagrodzenie {month}/{year}", "wypłata za {month}.{year}"),
            "tax": ("/TI/N{digits}/OKR/{year}M{month}/SFP/VAT-7", "/TI/N{digits}/OKR/{year}M{month}/SFP/PIT-4"),
            "card": ("płatność kartą {digits}", "zakup kartą {digits}"),
            "rent": ("czynsz {month}.{year}", "najem biura {month}/{year}"),
            "fee": ("opłata za prowadzenie rachunku", "prowizja za przelew"),
            "deposit": ("kaucja", "wadium {digits}"),
            "advance": ("zaliczka", "przedpłata na zamówienie {digits}"),
            "donation": ("darowizna na cele statutowe",),
        },
    ),
    "DE": Country(
        currency="EUR",
        rate=4.3,
        bank="",
        digits=18,
        legal=("GmbH", "AG", "UG", "e.K.", "KG"),
        sale="RE-{yyyy}-{mm}-{n:04}",
        credit="GS-",
        invoice=("Rechnung", "RE", "Rg.-Nr.", "Rechnungsnummer", ""),
        joiner=" und ",
        span="von {} bis {}",
        part="Rate",
        thanks="Danke",
        vague=("Zahlung", "Überweisung", "Lieferung", "laut Vereinbarung", "Begleichung offener Posten"),
        refund=("Rückzahlung Doppelzahlung", "Erstattung"),
        other={
            "own": ("Umbuchung", "Übertrag eigenes Konto"),
            "salary": ("Gehalt {month}/{year}", "Lohn {month}.{year}"),
            "tax": ("Umsatzsteuer {month}/{year} StNr {digits}", "Lohnsteuer {month}.{year}"),
            "card": ("Kartenzahlung {digits}", "Kartenumsatz {digits}"),
            "rent": ("Miete {month}/{year}",),
            "fee": ("Kontoführungsgebühr", "Entgelt Auslandsüberweisung"),
            "deposit": ("Kaution", "Sicherheitsleistung {digits}"),
            "advance": ("Anzahlung", "Vorkasse Auftrag {digits}"),
            "donation": ("Spende",),
        },
    ),
    "CZ": Country(
        currency="CZK",
        rate=0.17,
        bank="",
        digits=20,
        legal=("s.r.o.", "a.s.", "k.s."),
        sale="FA{yyyy}{mm}{n:04}",
        credit="OD-",
        invoice=("faktura", "fa č.", "úhrada faktury", "VS", ""),
        joiner=" a ",
        span="od {} do {}",
        part="splátka",
        thanks="děkujeme",
        vague=("úhrada", "platba za zboží", "dle smlouvy", "služby"),
        refund=("vrácení dvojí platby", "přeplatek"),
        other={
            "own": ("převod mezi vlastními účty",),
            "salary": ("mzda {month}/{year}", "výplata {month}/{year}"),
            "tax": ("DPH {month}/{year} {digits}", "daň z příjmů {month}/{year}"),
            "card": ("platba kartou {digits}",),
            "rent": ("nájem {month}/{year}",),
            "fee": ("poplatek za vedení účtu", "poplatek za platbu"),
            "deposit": ("kauce",),
            "advance": ("záloha", "záloha na objednávku {digits}"),
            "donation": ("dar",),
        },
    ),
    "GB": Country(
        currency="GBP",
        rate=5.0,
        bank="SAMP",
        digits=14,
        legal=("Ltd", "Limited", "PLC", "LLP"),
        sale="INV-{yyyy}{mm}-{n:04}",
        credit="CN-",
        invoice=("invoice", "Inv", "INV NO", "payment of invoice", ""),
        joiner=" & ",
        span="from {} to {}",
        part="part",
        thanks="thank you",
        vague=("payment", "services", "as agreed", "your account", "goods"),
        refund=("refund duplicate payment", "refund"),
        other={
            "own": ("internal transfer", "sweep to own account"),
            "salary": ("salary {month}/{year}", "wages {month}/{year}"),
            "tax": ("HMRC VAT {digits}", "PAYE {month}/{year}"),
            "card": ("card purchase {digits}",),
            "rent": ("rent {month}/{year}",),
            "fee": ("monthly account charge", "transfer fee"),
            "deposit": ("deposit", "tender bond {digits}"),
            "advance": ("prepayment", "advance for order {digits}"),
            "donation": ("donation",),
        },
    ),
    "SE": Country(
        currency="SEK",
        rate=0.38,
        bank="",
        digits=20,
        legal=("AB", "HB", "Handelsbolag"),
        sale="F{yyyy}-{mm}{n:04}",
        credit="KR-",
        invoice=("faktura", "faktnr", "betalning faktura", ""),
        joiner=" och ",
        span="från {} till {}",
        part="delbetalning",
        thanks="tack",
        vague=("betalning", "enligt avtal", "tjänster", "varor"),
        refund=("återbetalning dubbelbetalning", "återbetalning"),
        other={
            "own": ("överföring eget konto",),
            "salary": ("lön {month}/{year}",),
            "tax": ("moms {month}/{year} {digits}", "skattekonto {digits}"),
            "card": ("kortköp {digits}",),
            "rent": ("hyra {month}/{year}",),
            "fee": ("kontoavgift", "avgift utlandsbetalning"),
            "deposit": ("deposition",),
            "advance": ("förskott", "förskott order {digits}"),
            "donation": ("gåva",),
        },
    ),
    "FR": Country(
        currency="EUR",
        rate=4.3,
        bank="",
        digits=23,
        legal=("SARL", "SAS", "SA", "EURL"),
        sale="FAC-{yyyy}{mm}-{n:04}",
        credit="AV-",
        invoice=("facture", "FACT", "règlement facture n°", ""),
        joiner=" et ",
        span="de {} à {}",
        part="acompte",
        thanks="merci",
        vague=("virement", "règlement", "selon contrat", "prestation"),
        refund=("remboursement double paiement", "trop-perçu"),
        other={
            "own": ("virement interne",),
            "salary": ("salaire {month}/{year}",),
            "tax": ("TVA {month}/{year} {digits}", "impôt {digits}"),
            "card": ("achat carte {digits}",),
            "rent": ("loyer {month}/{year}",),
            "fee": ("frais de tenue de compte", "commission virement"),
            "deposit": ("dépôt de garantie",),
            "advance": ("avance", "avance commande {digits}"),
            "donation": ("don",),
        },
    ),
}

# How suppliers number their invoices: {n} is the running number, which starts again with each {mm}, else each year.
SUPPLIER_FORMS: Final = (
    "{n}/{yyyy}",
    "{n}/{mm}/{yyyy}",
    "{yyyy}/{mm}/{n:04}",
    "{yyyy}{n:05}",
    "{n:03}/{yy}/K",
    "FS {n}/{mm}/{yyyy}",
    "F{yy}{mm}-{n:03}",
    "R-{yyyy}-{n:05}",
    "FKT{n}/{yy}",
    "VS{yy}{n:06}",
    "LX-{n:06}",
    "{n:08}",
    "INV {yyyy}-{n:04}",
)

FIRMS: Final = (
    *(
        "Amberline",
        "Brzozów",
        "Cichociemna",
        "Dornfeld",
        "Ellerhof",
        "Fernside",
        "Gąsior",
        "Hollerbach",
        "Isar",
        "Jodła",
    ),
    *("Kestrel", "Lipówka", "Maarten", "Nordlys", "Ostoja", "Příbor", "Quarrymill", "Rosenau", "Stödde", "Tannwald"),
    *("Ursynek", "Västervik", "Wrzos", "Xenia", "Yarrow", "Zielona", "Ångby", "Évrard", "Śnieżka", "Žďár"),
    *("Alderney", "Borowik", "Calder", "Drewno", "Eskilden", "Finkenau", "Grabowa", "Hemlock", "Irwell", "Juniper"),
)
TRADES: Final = (
    *(
        "Tools",
        "Papier",
        "Kabel",
        "Transport",
        "Bau",
        "Foto",
        "Meble",
        "Chemia",
        "Farben",
        "Garden",
        "Opakowania",
        "Stahl",
    ),
    *("Catering", "IT", "Druk", "Textile", "Okna", "Glas", "Pumps", "Paliwa", "Labor", "Szkolenia", "Service", "Bikes"),
)
GIVEN: Final = (
    *("Aniela", "Bruno", "Cecylia", "Dawid", "Elin", "Frida", "Gaspard", "Henryk", "Iga", "Jonas", "Klara", "Ludvík"),
    *("Märta", "Nadia", "Oskar", "Pola", "Rufus", "Søren", "Tymon", "Ulrike", "Viggo", "Wanda", "Yvette", "Zofia"),
)
FAMILY: Final = (
    *(
        "Abbot",
        "Bielak",
        "Čermák",
        "Dreher",
        "Ekdahl",
        "Fauré",
        "Gajda",
        "Hübner",
        "Ibsen",
        "Jaworska",
        "Kłos",
        "Lindgren",
    ),
    *(
        "Mroczek",
        "Nyström",
        "Okoń",
        "Perrin",
        "Quist",
        "Różycka",
        "Sýkora",
        "Thorne",
        "Urbanek",
        "Vögele",
        "Wąs",
        "Żak",
    ),
)
FACTORS: Final = ("Fakturonet Finance S.A.", "Zaliczkomat Factoring Sp. z o.o.", "Vorfin Factoring GmbH")
ACQUIRER: Final = "Kartino Payments"
OURSELVES: Final = "Przykładowa Wytwórnia"


@dataclass(frozen=True)
class Other:
    """A sort of transfer that pays no invoice."""

    kind: str
    share: float  # Of all transfers that pay no invoice.
    directions: str  # 'in', 'out', or both.
    typical: int  # Median amount, in złoty.
    spread: float  # Sigma of its logarithm from one transfer to the next.
    day: int | None = None  # Day of the month on which it is due, or any day.
    payees: tuple[str, ...] = ()  # Who stands on the other side, where it is neither staff nor a customer or supplier.
    of_partner: bool = False  # A customer or supplier stands there, which makes it look like a payment.


OTHER: Final = (
    Other("own", 0.12, "in out", 20_000, 0.8, payees=(OURSELVES,)),
    Other("salary", 0.30, "out", 6_500, 0.05, day=27),
    Other("tax", 0.10, "out", 9_000, 0.6, day=20, payees=("Urząd Skarbowy", "Tax Office")),
    Other(
        "card", 0.20, "out", 180, 0.9, payees=("Stacja Paliw Wrzos", "Hotel Kestrel", "Amberline Cafe", "Cloud Yarrow")
    ),
    Other("rent", 0.06, "out", 8_000, 0.0, day=8, payees=("Biurowiec Ostoja", "Grabowa Real Estate")),
    Other("fee", 0.10, "out", 25, 0.5, payees=("Bank Przykładowy",)),
    Other("deposit", 0.04, "in out", 3_000, 0.7, of_partner=True),
    Other("advance", 0.05, "in", 2_500, 0.9, of_partner=True),
    Other("donation", 0.03, "out", 500, 0.6, payees=("Fundacja Jodła",)),
)
