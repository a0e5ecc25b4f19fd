"""What exports call the columns of the contract, in English, Polish and German: the likelier name first."""

from typing import Final

# Columns that are no column of the contract but tell one: what a row is, and amounts in two columns.
KIND: Final = "kind"
AMOUNT_IN: Final = "amount_in"
AMOUNT_OUT: Final = "amount_out"
# The account whose export it is: it tells rows of several accounts apart.
OWN_ACCOUNT: Final = "own_account"
# A constant direction of transfers: what went out has a negative amount.
SIGNED: Final = "signed"

# Whose account it is, the header does not say.
_ANY_ACCOUNT: Final = """iban|account number|account|bank account|account no|nr konta|numer konta|rachunek|numer rachunku
    |nr rachunku|kontonummer iban|kontonummer"""
_OWN_ACCOUNT: Final = """own account|our account|own iban|rachunek wlasny|nr rachunku wlasnego|numer rachunku wlasnego
    |konto wlasne|auftragskonto|iban auftragskonto|eigenes konto|eigene iban"""
_THEIR_ACCOUNT: Final = """counterparty account|beneficiary account|rachunek kontrahenta|konto kontrahenta
    |nadawca odbiorca nr konta|nr rachunku nadawcy odbiorcy|numer rachunku kontrahenta
    |auftraggeberkonto|iban zahlungsbeteiligter|iban auftragskonto gegenseite
    |kontonummer iban des beguenstigten|gegenkonto"""
_ACCOUNT: Final = f"{_THEIR_ACCOUNT}|{_ANY_ACCOUNT}"
_CURRENCY: Final = "currency|currency code|ccy|waluta|kod waluty|waehrung|währung|währungscode|whg"

_TEXTS: Final[dict[str, dict[str, str]]] = {
    "invoices": {
        "invoice_id": "invoice id|document id|id|invoice key|id faktury|id dokumentu|rechnungs id|beleg id",
        "number": """invoice number|invoice no|number|document number|document no|invoice|inv no|voucher number
            |numer faktury|nr faktury|numer|numer dokumentu|nr dokumentu|faktura|dokument
            |rechnungsnummer|rechnungsnr|rechnung nr|rechnung|belegnummer|belegnr|nummer|beleg nr""",
        "direction": "direction|sale or purchase|rodzaj rejestru|kierunek|sprzedaz zakup|richtung|belegart richtung",
        "counterparty_id": """counterparty id|customer id|customer number|customer no|client id|vendor id|supplier id
            |vendor number|account id|id kontrahenta|kod kontrahenta|numer klienta|kod klienta|nr kontrahenta|akronim
            |kundennummer|kundennr|debitor|debitorennummer|kreditor|kreditorennummer|lieferantennummer|partner""",
        "counterparty_name": """counterparty name|customer name|customer|client|client name|vendor|vendor name|supplier
            |supplier name|company|name|kontrahent|nazwa kontrahenta|nabywca|nazwa nabywcy|klient|nazwa klienta
            |sprzedawca|dostawca|nazwa|kunde|kundenname|lieferant|lieferantenname|firma|debitorname|geschaeftspartner""",
        "counterparty_tax_id": """tax id|vat id|vat number|vat no|tax number|customer tax id|vat registration number
            |nip|nip kontrahenta|nip nabywcy|nip sprzedawcy|ust id|ust idnr|ustid|umsatzsteuer id|steuernummer
            |counterparty tax id""",
        "counterparty_account": _ACCOUNT,
        "issued_on": """invoice date|issue date|date of issue|issued on|issued|document date|date
            |data wystawienia|data faktury|data dokumentu|data|data sprzedazy
            |rechnungsdatum|belegdatum|ausstellungsdatum|datum""",
        "due_on": """due date|due on|payment due|payment due date|pay by|due|termin platnosci|data platnosci|termin
            |termin zaplaty|faelligkeit|fällig am|fälligkeit|fälligkeitsdatum|zahlbar bis|faelligkeitsdatum""",
        "amount": """gross amount|gross|total|invoice amount|total amount|amount|amount due|gross total|total gross
            |kwota brutto|brutto|wartosc brutto|razem brutto|kwota|do zaplaty|wartosc
            |bruttobetrag|brutto betrag|gesamtbetrag|rechnungsbetrag|betrag|summe brutto|summe""",
        "currency": _CURRENCY,
        "reference": """payment reference|reference|structured reference|remittance reference|rf reference
            |referencja platnosci|tytul platnosci|zahlungsreferenz|referenz|verwendungszweck""",
        KIND: """document type|type|invoice type|kind|typ dokumentu|rodzaj dokumentu|typ|rodzaj
            |belegart|dokumentart|art|rechnungsart""",
    },
    "transfers": {
        "transfer_id": """transaction id|transfer id|bank reference|transaction reference|reference number|id
            |identyfikator transakcji|numer transakcji|numer referencyjny|referencja banku|nr referencyjny
            |transaktionsid|umsatz id|bankreferenz|transaktions id""",
        "booked_on": """booking date|booked on|posting date|date posted|transaction date|date|value date
            |data ksiegowania|data operacji|data transakcji|data zaksiegowania|data|data waluty
            |buchungstag|buchungsdatum|buchung|datum|valutadatum|wertstellung|valuta""",
        "amount": """amount|transaction amount|sum|value|kwota|kwota operacji|kwota transakcji|wartosc
            |betrag|umsatz|buchungsbetrag|betrag eur""",
        AMOUNT_IN: """paid in|credit|credit amount|money in|deposit|uznania|uznanie|wplyw|wplywy|kwota uznania
            |haben|gutschrift""",
        AMOUNT_OUT: """paid out|debit|debit amount|money out|withdrawal|obciazenia|obciazenie|wyplyw|wydatki
            |kwota obciazenia|soll|belastung|lastschrift""",
        "currency": _CURRENCY,
        "direction": """direction|debit credit|credit debit|dr cr|debit or credit|typ operacji|strona|wn ma
            |soll haben|soll haben kennzeichen|sollhaben|richtung""",
        "counterparty_name": """counterparty name|counterparty|payer|payee|name|beneficiary|sender|payer name|other party
            |kontrahent|nadawca odbiorca|nazwa kontrahenta|dane kontrahenta|nadawca|odbiorca|nazwa nadawcy odbiorcy
            |auftraggeber|empfaenger|beguenstigter zahlungspflichtiger|name zahlungsbeteiligter|auftraggeber empfänger
            |zahlungspflichtiger|zahlungsempfänger|zahlungspflichtige r|auftraggeber beguenstigter|gegenpartei
            |name description""",
        "counterparty_account": f"{_ACCOUNT}|counterparty",
        OWN_ACCOUNT: f"{_OWN_ACCOUNT}|{_ANY_ACCOUNT}",
        "title": """title|remittance information|description|reference|details|payment details|transaction details
            |narrative|memo|notifications|tytul|tytul przelewu|tytul operacji|opis operacji|opis|szczegoly|tytulem
            |verwendungszweck|buchungstext|zahlungsgrund|vwz|beschreibung""",
    },
}
SYNONYMS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    table: {target: tuple(" ".join(name.split()) for name in names.split("|")) for target, names in targets.items()}
    for table, targets in _TEXTS.items()
}
# Headers of accounts, folded: of ours, of those of others, and those that do not say.
OWN_ACCOUNTS, THEIR_ACCOUNTS, ANY_ACCOUNTS = (
    frozenset(" ".join(name.split()).upper() for name in names.split("|"))
    for names in (_OWN_ACCOUNT, f"{_THEIR_ACCOUNT}|counterparty", _ANY_ACCOUNT)
)
# By these columns one table is told from the other.
TELLING: Final[dict[str, frozenset[str]]] = {
    "invoices": frozenset({"number", "due_on", "issued_on", "counterparty_tax_id", "invoice_id"}),
    "transfers": frozenset({"booked_on", "title", "counterparty_account", AMOUNT_IN, AMOUNT_OUT}),
}

# What stands in columns of directions and kinds, folded.
DIRECTIONS: Final[dict[str, dict[str, str]]] = {
    "transfers": {
        **dict.fromkeys(
            ("IN", "C", "CR", "CREDIT", "CRDT", "H", "HABEN", "MA", "UZNANIE", "PRZYCHODZACY", "WPLYW"), "in"
        ),
        **dict.fromkeys(("OUT", "D", "DR", "DEBIT", "DBIT", "S", "SOLL", "WN", "OBCIAZENIE", "WYCHODZACY"), "out"),
        **dict.fromkeys(("INCOMING", "EINGANG", "GUTSCHRIFT"), "in"),
        **dict.fromkeys(("OUTGOING", "AUSGANG", "LASTSCHRIFT", "BELASTUNG"), "out"),
    },
    "invoices": {
        **dict.fromkeys(("SALE", "SALES", "AR", "RECEIVABLE", "SPRZEDAZ", "VERKAUF", "DEBITOR", "AUSGANG"), "sale"),
        **dict.fromkeys(
            ("PURCHASE", "PURCHASES", "AP", "PAYABLE", "ZAKUP", "EINKAUF", "KREDITOR", "EINGANG"), "purchase"
        ),
    },
}
CREDIT_NOTES: Final = frozenset({"CREDIT NOTE", "CREDIT", "CREDITNOTE", "CN", "GUTSCHRIFT", "381"})
# These may also add to what is to be paid.
CORRECTIONS: Final = frozenset(
    {"KOREKTA", "FAKTURA KORYGUJACA", "FK", "KOR", "RECHNUNGSKORREKTUR", "STORNO", "STORNORECHNUNG"}
)
# A pro-forma invoice, which is no claim.
PRO_FORMA: Final = r"\bPRO ?FORMA|^325$"
