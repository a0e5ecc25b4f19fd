"""Money is int64 minor units inside (1/100 of any currency, as the contract fixes two places) and decimal at the edges."""

from typing import Final

import polars as pl

MINOR_UNITS: Final = 100
DECIMAL: Final = pl.Decimal(18, 2)

# ISO 4217, active codes of national currencies (list one, 2024). Test and "no currency" codes are left out on purpose.
CURRENCIES: Final = frozenset(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK
    MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR
    SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED
    VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWL HRK""".split()
)


def to_minor(column: str) -> pl.Expr:
    """Minor units (int64) of a decimal, float or integer column in major units; null where it is not an exact amount.

    Floats are accepted when they lie within a thousandth of a minor unit of a whole one: that is how Parquet files
    written without decimals carry exact amounts.
    """
    value = pl.col(column)
    minor = (value.cast(pl.Float64, strict=False) * MINOR_UNITS).round()
    exact = ((value.cast(pl.Float64, strict=False) * MINOR_UNITS - minor).abs() <= 1e-3 + minor.abs() * 1e-12) & (
        minor.abs() < 2**53
    )
    return pl.when(exact).then(minor).otherwise(None).cast(pl.Int64, strict=False)


def to_decimal(column: str) -> pl.Expr:
    """The inverse of `to_minor`: DECIMAL(18, 2) in major units."""
    return (pl.col(column).cast(pl.Decimal(38, 2)) / MINOR_UNITS).cast(DECIMAL).alias(column)


def decimal(minor: int) -> str:
    """Minor units as text in major ones, with two places."""
    whole, part = divmod(abs(minor), MINOR_UNITS)
    return f"{'-' if minor < 0 else ''}{whole}.{part:02d}"
