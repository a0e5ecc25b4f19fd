"""The companies, as data. Rates are a month, amounts in euro, months are counted from zero."""

from dataclasses import replace
from typing import Final

from benchmarks.companies.spec import Company, Habit, Payer, Segment

_FOUND = {
    "salary": 22.0, "tax": 5.0, "rent": 3.0, "fee": 7.0, "interest": 2.0, "own in": 5.0, "own out": 5.0, "card": 14.0,
    "refund in": 3.0, "deposit": 2.0, "advance": 3.0, "donation": 1.0, "direct debit": 6.0, "wage garnish": 1.0,
}  # fmt: skip

# What the company itself writes when it pays its suppliers: its own system does, so nearly always in full.
_WE_PAY = Habit(
    rhythm="weekly",
    late=(0, 3),
    titles={"number": 0.8, "dated number": 0.15, "order and number": 0.05},
    forms={"printed": 0.9, "squeezed": 0.1},
    joiners=(", ", " ", "/"),
    typos=0.004,
)
_WE_PAY_SINGLY = replace(_WE_PAY, rhythm="each")

# --- Norway: machine references, short running numbers, bureaus that pay for their clients from one account.
_NORDIC = {"NO": 0.62, "SE": 0.16, "DK": 0.12, "FI": 0.1}
_KID = Habit(
    late=(1, 6),
    titles={
        "reference": 0.72,
        "named reference": 0.1,
        "number": 0.05,
        "customer and number": 0.03,
        "vague": 0.05,
        "name": 0.02,
        "empty": 0.03,
    },
    forms={"printed": 0.9, "spaced": 0.1},
    typos=0.035,
    stale=0.025,
)
_NORWAY = Company(
    home="NO",
    ourselves="Dovresmia AS",
    start="2022-04",
    numbers={0: "{n}"},
    first_number=95_400,
    credit_number="{n:05}",
    old_number="{n}",
    segments={
        "households": Segment(
            216, 0.5, _NORDIC, replace(_KID, late=(0, 7)), median=140, persons=0.8, reference="country", references=0.97
        ),
        "firms": Segment(76, 1.5, _NORDIC, _KID, median=620, reference="country", references=0.95, credits=0.05),
        "subscribers": Segment(
            56, 0.9, {"NO": 0.9, "SE": 0.1}, _KID, median=90, recurring=0.7, persons=0.4, reference="customer kid"
        ),
        "bureau clients": Segment(
            48, 0.9, {"NO": 0.8, "SE": 0.2},
            replace(_KID, titles={"reference": 0.6, "number": 0.25, "reference and number": 0.15}, payer="bureau"),
            median=380, reference="country", account_known=0.1,
        ),
        "chains": Segment(
            13, 6.0, _NORDIC,
            Habit(
                rhythm="weekly", late=(3, 4), most=12, joiners=(" ", ", ", ","), cut={"140": 0.8, "70": 0.2}, typos=0.02,
                titles={"reference": 0.55, "number": 0.25, "named reference": 0.1, "vague": 0.1},
            ),
            median=850, reference="country", credits=0.07, days=(30,),
        ),
        "exporters": Segment(
            18, 1.6, {"FI": 0.3, "SE": 0.3, "DK": 0.2, "GB": 0.2},
            Habit(titles={"reference": 0.5, "number": 0.4, "vague": 0.1}, deducts={"fee": 0.15}, exchanged=0.3),
            median=1500, reference="rf", references=0.8, days=(30, 45),
        ),
        "suppliers": Segment(
            60, 1.3, _NORDIC,
            Habit(late=(0, 3), titles={"reference": 0.93, "number": 0.07}, typos=0.003),
            side="purchase", median=520, reference="country", references=0.92, account_known=0.9, days=(14, 20, 30),
        ),
        "landlords and leasing": Segment(
            11, 1.0, {"NO": 1.0}, Habit(late=(0, 1), titles={"reference": 0.8, "number": 0.2}, typos=0.0),
            side="purchase", median=700, recurring=1.0, reference="country", account_known=0.95, days=(14,),
        ),
    },
    payers={
        "bureau": (
            Payer("Fjordtall Regnskap AS", "NO", under=0.6),
            Payer("Bilagsgutten Økonomi AS", "NO", under=0.6),
            Payer("Siffran Redovisning AB", "SE", under=0.4),
        )
    },
    nothing=_FOUND,
)  # fmt: skip

# --- A hotel with a web shop: acquirers bundle the sales of many guests.
_GUESTS = {"PT": 0.3, "ES": 0.2, "GB": 0.25, "NL": 0.15, "FR": 0.1}
_RATES = (65.0, 79.0, 89.0, 99.0, 119.0, 129.0, 149.0, 169.0, 189.0, 215.0)
_CARD = Habit(rhythm="payout", payer="acquirer")
_ACQUIRER = Company(
    home="PT",
    ourselves="Hospedaria Farol Novo Lda",
    start="2022-10",
    numbers={0: "HF {yy}/{n:06}"},
    first_number=20_417,
    credit_number="NC {yy}/{n:05}",
    old_number="{n:06}",
    segments={
        "guests by card": Segment(
            8464, 0.07, _GUESTS, _CARD, prices=_RATES, persons=0.93, credits=0.035, unpaid=0.003, days=(0,),
            reference="payment id", references=0.98, account_known=0.0,
        ),
        "pay by link": Segment(
            386, 0.08, _GUESTS,
            Habit(titles={"named reference": 0.6, "reference": 0.4}, late=(1, 1), payer="link", typos=0.0),
            prices=_RATES, persons=0.8, days=(0,), reference="payment id", account_known=0.0,
        ),
        "guests by transfer": Segment(
            828, 0.06, _GUESTS,
            Habit(
                titles={"number": 0.5, "reference": 0.2, "name": 0.15, "vague": 0.1, "empty": 0.05}, late=(-2, 4),
                forms={"printed": 0.4, "running": 0.25, "stripped": 0.2, "digits": 0.15}, typos=0.05,
                payer="owner", payer_share=0.2, deducts={"fee": 0.03},
            ),
            prices=_RATES, persons=0.8, days=(7,), reference="payment id", references=0.4, account_known=0.05,
        ),
        "travel agencies": Segment(
            31, 3.4, {"PT": 0.4, "ES": 0.3, "GB": 0.2, "NL": 0.1},
            Habit(
                rhythm="monthly", late=(4, 6), most=25, cut={"140": 0.6, "70": 0.3, "35": 0.1}, typos=0.03,
                titles={"number": 0.65, "period": 0.15, "vague": 0.2},
                forms={"printed": 0.4, "stripped": 0.4, "running": 0.2}, deducts={"fee": 0.05},
            ),
            prices=_RATES, credits=0.07, days=(30,),
        ),
        "firms": Segment(
            78, 0.9, {"PT": 0.7, "ES": 0.2, "GB": 0.1},
            Habit(
                titles={"number": 0.7, "vague": 0.15, "name": 0.1, "order and number": 0.05}, late=(4, 7),
                forms={"printed": 0.4, "digits": 0.2, "running": 0.2, "stripped": 0.2}, parts={"30/70": 0.06},
                payer="parent", payer_share=0.12,
            ),
            median=480, days=(15, 30),
        ),
        "suppliers": Segment(83, 1.1, {"PT": 0.8, "ES": 0.2}, _WE_PAY, side="purchase", median=380, account_known=0.9),
        "rents": Segment(
            17, 1.0, {"PT": 1.0}, _WE_PAY_SINGLY, side="purchase", median=240, recurring=1.0, account_known=0.9, days=(8,)
        ),
    },
    payers={
        "acquirer": (
            Payer("ADQUEN N.V.", "NL", "AQ", keeps=(0.009, 0.019), fixed=10, every=1, lag=2),
            Payer("STRYPAY EUROPE LTD", "GB", "sp_", keeps=(0.0149, 0.0149), fixed=25, every=3, lag=2),
            Payer("PAYVO MERCHANT SERVICES", "ES", "PV-", keeps=(0.009, 0.009), every=2, lag=1),
            Payer("CARTAFLUX SA", "FR", "CFX", keeps=(0.018, 0.029), every=7, lag=3),
        ),
        "link": (Payer("LINKAPAGO INSTITUICAO DE PAGAMENTO", "PT", "LK", keeps=(0.019, 0.019), fixed=30),),
    },
    nothing=_FOUND | {"refund in": 6.0, "deposit": 6.0},
)  # fmt: skip

# --- A wholesaler in central Europe, whose payers do as they please.
_CENTRAL = {"AT": 0.36, "HU": 0.22, "SK": 0.18, "RO": 0.14, "SI": 0.1}
_MESSY = Habit(
    late=(6, 9),
    most=9,
    titles={
        "number": 0.58,
        "dated number": 0.1,
        "vague": 0.13,
        "name": 0.06,
        "empty": 0.05,
        "order and number": 0.04,
        "customer and number": 0.04,
    },
    forms={
        "printed": 0.3,
        "squeezed": 0.14,
        "spaced": 0.12,
        "former": 0.11,
        "last year": 0.06,
        "running": 0.14,
        "stripped": 0.13,
    },
    joiners=(", ", " ", "", "+", "/", "; ", " u. "),
    cut={"140": 0.45, "70": 0.25, "35": 0.3},
    typos=0.45,
    glued=0.3,
    stale=0.03,
    deducts={"skonto2": 0.06, "skonto3": 0.05, "fee": 0.04, "rounded": 0.04, "over": 0.01},
    parts={"30/70": 0.04, "50/50": 0.05, "thirds": 0.03, "tenth first": 0.02, "stuck at half": 0.01},
    exchanged=0.08,
)
_MESSY_COMPANY = Company(
    home="AT",
    ourselves="Eisenhof Großhandel GmbH",
    start="2023-01",
    numbers={0: "AR-{yyyy}-{n:05}"},
    first_number=2_310,
    credit_number="GU-{yyyy}-{n:04}",
    old_number="{yy}/{n:05}/WH",
    segments={
        "craftsmen": Segment(
            93, 0.85, _CENTRAL, replace(_MESSY, payer="owner", payer_share=0.3), median=310, persons=0.25, days=(14, 30)
        ),
        "shops": Segment(46, 1.8, _CENTRAL, _MESSY, median=780, credits=0.07),
        "skonto takers": Segment(
            16, 2.0, _CENTRAL, replace(_MESSY, late=(-20, 3), always="skonto3", deducts={}, parts={}), median=900, days=(30,)
        ),
        "weekly runs": Segment(14, 4.5, _CENTRAL, replace(_MESSY, rhythm="weekly", parts={}), median=650, credits=0.1),
        "monthly runs": Segment(16, 3.5, _CENTRAL, replace(_MESSY, rhythm="monthly", parts={}), median=520, credits=0.1),
        "on account": Segment(
            11, 2.4, _CENTRAL, replace(_MESSY, rhythm="account", parts={}), median=700, credits=0.0, unpaid=0.0
        ),
        "groups": Segment(
            14, 2.0, _CENTRAL, replace(_MESSY, rhythm="weekly", payer="parent", parts={}), median=900
        ),
        "sold receivables": Segment(
            12, 2.0, _CENTRAL,
            replace(_MESSY, rhythm="weekly", payer="factor", parts={}, typos=0.2, titles={"number": 1.0}, cut={"140": 1.0}),
            median=800, account_known=0.6,
        ),
        "taken over": Segment(7, 1.4, _CENTRAL, replace(_MESSY, payer="successor", payer_share=0.7), median=700),
        "on rates": Segment(
            15, 0.8, _CENTRAL,
            replace(_MESSY, parts={"quarters": 0.35, "thirds": 0.25, "50/50": 0.2, "30/70": 0.2}, deducts={}),
            median=2600,
        ),
        "suppliers": Segment(
            50, 1.2, _CENTRAL, replace(_WE_PAY, typos=0.03, deducts={"skonto2": 0.12, "skonto3": 0.08}),
            side="purchase", median=900, account_known=0.85, credits=0.05,
        ),
        "rents": Segment(
            10, 1.0, {"AT": 1.0}, _WE_PAY_SINGLY, side="purchase", median=350, recurring=1.0, account_known=0.9, days=(8,)
        ),
    },
    payers={
        "factor": (
            Payer("Abtretix Forderungsbank AG", "AT"),
            Payer("Követeléskezelő Faktorház Zrt.", "HU"),
            Payer("Danubia Receivables s.r.o.", "SK"),
        )
    },
    nothing=_FOUND,
    account_shown=0.82,
)  # fmt: skip

# --- A distributor like many, until its tenth month.
_WEST = {"FR": 0.44, "BE": 0.23, "IT": 0.17, "NL": 0.11, "GB": 0.05}
_PLAIN = Habit(
    titles={"number": 0.76, "dated number": 0.06, "customer and number": 0.05, "vague": 0.1, "name": 0.03},
    forms={"printed": 0.5, "squeezed": 0.2, "digits": 0.1, "running": 0.1, "stripped": 0.1},
    typos=0.03,
    deducts={"fee": 0.01, "rounded": 0.01},
    parts={"30/70": 0.02, "50/50": 0.01},
    exchanged=0.4,
    stale=0.01,
)
_BATCHES = replace(_PLAIN, rhythm="monthly", most=30, cut={"140": 0.4, "70": 0.4, "35": 0.2}, parts={})
_DRIFT = Company(
    home="FR",
    ourselves="Comptoir Armorval SAS",
    start="2023-05",
    numbers={0: "FA{yy}{mm}-{n:04}", 9: "{n:07}"},
    first_number=1,
    credit_number="AV{yy}-{n:05}",
    old_number="FA{n:04}",
    segments={
        "steady": Segment(73, 1.0, _WEST, _PLAIN, median=430),
        "steady runs": Segment(15, 3.4, _WEST, replace(_PLAIN, rhythm="weekly", parts={}), median=520, credits=0.06),
        "new bank": Segment(40, 1.1, _WEST, _PLAIN, _PLAIN, median=460),
        "from single to batches": Segment(22, 2.6, _WEST, _PLAIN, _BATCHES, median=420, credits=0.05),
        "from exact to skonto": Segment(
            22, 1.7, _WEST, _PLAIN, replace(_PLAIN, late=(-15, 4), always="skonto2", parts={}), median=620, days=(30,)
        ),
        "to a shared centre": Segment(
            34, 2.6, _WEST, _PLAIN,
            replace(
                _BATCHES, rhythm="weekly", payer="centre", titles={"centre": 0.8, "number": 0.2}, cut={"70": 0.6, "35": 0.4}
            ),
            median=640,
        ),
        "merged": Segment(
            17, 1.6, _WEST, _PLAIN,
            replace(_PLAIN, payer="merged", titles={"number": 0.8, "vague": 0.2}, parts={}), median=560,
        ),
        "to no reference": Segment(
            16, 1.4, _WEST, _PLAIN, replace(_PLAIN, titles={"vague": 0.5, "empty": 0.3, "bank only": 0.2}), median=510
        ),
        "to instalments": Segment(
            9, 1.2, _WEST, _PLAIN, replace(_PLAIN, parts={"thirds": 0.4, "50/50": 0.4}), median=1900
        ),
        "subscribers": Segment(26, 1.0, _WEST, _PLAIN, _PLAIN, median=110, recurring=1.0),
        "suppliers": Segment(53, 1.3, _WEST, _WE_PAY, side="purchase", median=700, account_known=0.9, credits=0.05),
        "rents": Segment(
            11, 1.0, {"FR": 1.0}, _WE_PAY_SINGLY, side="purchase", median=420, recurring=1.0, account_known=0.9, days=(8,)
        ),
    },
    payers={
        "centre": (
            Payer("Lumières Services Partagés SNC", "FR"),
            Payer("Bruxa Shared Finance BV", "BE"),
            Payer("Amministrazioni Unite Srl", "IT"),
            Payer("Kantorium Finance Hub BV", "NL"),
        ),
        "merged": (Payer("Groupe Galternance SA", "FR", under=0.1), Payer("Unifrigo S.p.A.", "IT", under=0.1)),
    },
    nothing=_FOUND,
    shift=9,
)  # fmt: skip

# --- A trader in Singapore: names in other scripts, almost no references, closings by the month, tax withheld.
_SILENT = Habit(
    late=(2, 4), titles={"furikomi": 0.8, "vague": 0.12, "number": 0.08}, cut={"140": 0.8, "35": 0.2}, typos=0.02
)
_INDIAN = Habit(
    late=(6, 8),
    titles={"neft": 0.72, "neft number": 0.2, "vague": 0.08},
    forms={"printed": 0.5, "digits": 0.3, "stripped": 0.2},
    deducts={"fee": 0.06, "rounded": 0.25},
)
_ASIA = Company(
    home="SG",
    ourselves="Straitshaven Components Pte Ltd",
    start="2023-04",
    numbers={0: "SH{yy}{mm}{n:04}"},
    first_number=1,
    credit_number="CN{yy}{n:05}",
    old_number="SH/{n:04}",
    segments={
        "closing in Japan": Segment(
            48, 2.8, {"JP": 1.0}, replace(_SILENT, rhythm="closing", deducts={"fee": 0.15}, most=40),
            median=900, account_known=0.15, credits=0.04, unpaid=0.003, days=(30,),
        ),
        "singly from Japan": Segment(
            37, 1.2, {"JP": 1.0}, replace(_SILENT, deducts={"fee": 0.25}), median=700, account_known=0.15, days=(30,)
        ),
        "Korea": Segment(
            33, 1.6, {"KR": 1.0},
            replace(_SILENT, titles={"vague": 0.55, "name": 0.25, "number": 0.2}, deducts={"fee": 0.1}),
            median=650, account_known=0.3, days=(30, 45),
        ),
        "closing in Korea": Segment(
            18, 3.0, {"KR": 1.0},
            replace(_SILENT, rhythm="closing", titles={"vague": 0.6, "name": 0.3, "number": 0.1}, most=40),
            median=500, account_known=0.3, unpaid=0.003,
        ),
        "India, no tax": Segment(27, 1.3, {"IN": 1.0}, _INDIAN, median=560, account_known=0.3),
        "India, goods": Segment(26, 1.5, {"IN": 1.0}, replace(_INDIAN, always="tds2"), median=640, account_known=0.3),
        "India, services": Segment(14, 1.4, {"IN": 1.0}, replace(_INDIAN, always="tds10"), median=720, account_known=0.3),
        "India, tax on the net": Segment(
            16, 1.4, {"IN": 1.0}, replace(_INDIAN, always="tds10 before tax"), median=650, account_known=0.3
        ),
        "India, goods on the net": Segment(
            10, 1.4, {"IN": 1.0}, replace(_INDIAN, always="tds2 before tax"), median=650, account_known=0.3
        ),
        "India, batches": Segment(
            14, 3.0, {"IN": 1.0}, replace(_INDIAN, rhythm="monthly", always="tds2", most=25), median=480, account_known=0.3
        ),
        "Singapore": Segment(
            42, 1.5, {"SG": 1.0},
            Habit(titles={"giro": 0.65, "number": 0.2, "name": 0.15}, forms={"printed": 0.6, "stripped": 0.4}),
            median=430, account_known=0.5,
        ),
        "Singapore, runs": Segment(
            12, 3.6, {"SG": 1.0},
            Habit(rhythm="monthly", titles={"giro": 0.6, "number": 0.4}, cut={"140": 0.6, "70": 0.4}),
            median=500, credits=0.05,
        ),
        "service contracts": Segment(
            27, 1.0, {"SG": 0.6, "JP": 0.25, "IN": 0.15}, replace(_SILENT, titles={"giro": 0.6, "name": 0.3, "vague": 0.1}),
            median=180, recurring=1.0,
        ),
        "overseas by wire": Segment(
            14, 1.2, {"GB": 0.3, "US": 0.4, "KR": 0.3},
            Habit(titles={"tt": 0.6, "number": 0.2, "name": 0.2}, deducts={"fee": 0.5}, exchanged=0.25), median=1800,
        ),
        "suppliers": Segment(
            48, 1.3, {"SG": 0.5, "JP": 0.2, "IN": 0.2, "KR": 0.1}, _WE_PAY, side="purchase", median=800, account_known=0.85
        ),
        "rents": Segment(
            10, 1.0, {"SG": 1.0}, _WE_PAY_SINGLY, side="purchase", median=420, recurring=1.0, account_known=0.9, days=(8,)
        ),
    },
    nothing=_FOUND,
    account_shown=0.55,
    upper=0.9,
)  # fmt: skip

# --- Clinics in America: insurers pay claims of many patients, some only in part; cheques through a lockbox.
# An insurer that denies shares of claims lists what it pays; one whose remittance is cut pays in full.
_INSURED = Habit(
    rhythm="claims", late=(8, 7), most=7, payer="insurer", denies=0.2, joiners=(",", " ", "*"),
    titles={"era": 0.8, "ach": 0.2}, forms={"printed": 1.0}, typos=0.004,
)  # fmt: skip
_LOCKBOX = Habit(
    late=(6, 9), titles={"cheque": 0.45, "ach": 0.4, "customer and number": 0.06, "name": 0.05, "vague": 0.04},
    joiners=(",", ", ", " "), typos=0.04, stale=0.01, forms={"printed": 1.0}, cut={"140": 0.6, "70": 0.2, "35": 0.2},
)  # fmt: skip
_HEALTHCARE = Company(
    home="US",
    ourselves="Tallgrass Clinics PLLC",
    start="2022-07",
    numbers={0: "{n}"},
    first_number=10_023,
    credit_number="CR{n:05}",
    old_number="{n}",
    segments={
        "insured": Segment(
            760, 0.19, {"US": 1.0}, _INSURED, median=260, persons=1.0, reference="claim", account_known=0.0,
            days=(30,), credits=0.01, unpaid=0.015,
        ),
        "insured in full": Segment(
            420, 0.19, {"US": 1.0},
            replace(_INSURED, most=18, payer="plan", denies=0.0, cut={"140": 0.4, "70": 0.6}),
            median=210, persons=1.0, reference="claim", account_known=0.0, days=(30,), credits=0.01, unpaid=0.015,
        ),
        "self-pay": Segment(
            260, 0.25, {"US": 1.0},
            replace(_LOCKBOX, titles={"cheque": 0.45, "card": 0.3, "name": 0.15, "number": 0.1}, parts={"thirds": 0.04}),
            median=190, persons=1.0, account_known=0.0, unpaid=0.06,
        ),
        "therapy, several a month": Segment(
            46, 1.9, {"US": 1.0}, replace(_LOCKBOX, titles={"card": 0.5, "cheque": 0.3, "ach": 0.2}, late=(-6, 4)),
            prices=(60.0, 85.0, 110.0, 125.0, 150.0), recurring=1.0, persons=1.0, account_known=0.1, days=(14,),
        ),
        "memberships": Segment(
            43, 1.0, {"US": 1.0}, replace(_LOCKBOX, titles={"card": 0.4, "ach": 0.6}), prices=(25.0, 39.0, 49.0),
            recurring=1.0, persons=0.6, days=(10,),
        ),
        "employers": Segment(
            21, 3.0, {"US": 1.0}, replace(_LOCKBOX, rhythm="weekly", most=16, titles={"ach": 0.7, "cheque": 0.3}),
            median=540, credits=0.05, days=(30,),
        ),
        "employers, singly": Segment(43, 1.1, {"US": 1.0}, _LOCKBOX, median=700, days=(30,)),
        "guarantors": Segment(
            37, 0.6, {"US": 1.0}, replace(_LOCKBOX, payer="owner", titles={"cheque": 0.6, "card": 0.4}), median=230,
            persons=1.0, account_known=0.0,
        ),
        "suppliers": Segment(53, 1.2, {"US": 1.0}, _WE_PAY, side="purchase", median=650, account_known=0.8),
        "leases": Segment(
            10, 1.0, {"US": 1.0}, _WE_PAY_SINGLY, side="purchase", median=520, recurring=1.0, account_known=0.9, days=(8,)
        ),
    },
    payers={
        "insurer": (
            Payer("BLUEHAVEN MUTUAL HEALTH", "US", "BH"),
            Payer("CASCADIA CARE PLAN", "US", "CCP"),
            Payer("UNITY MERIDIAN HLTH", "US", "U"),
            Payer("PRAIRIE STATE MEDICAID", "US", "KS"),
        ),
        "plan": (
            Payer("FORTLINE EMPLOYEE BENEFITS", "US", "F-"),
            Payer("AMERIGUARD HLTHPLANS", "US", "AG"),
        )
    },
    nothing=_FOUND | {"card": 20.0},
    upper=0.97,
)  # fmt: skip

COMPANIES: Final = {
    "norway": _NORWAY,
    "acquirer": _ACQUIRER,
    "messy": _MESSY_COMPANY,
    "drift": _DRIFT,
    "asia": _ASIA,
    "healthcare_us": _HEALTHCARE,
}
