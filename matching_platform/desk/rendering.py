"""Pages from templates, in the reader's language, with his amounts and dates."""

from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from babel import Locale
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from matching_platform.desk import formats, i18n
from matching_platform.desk.preferences import preferences
from matching_platform.desk.security import csrf_token
from matching_platform.desk.told import told

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
_FORMATS: Final[tuple[Callable[..., str], ...]] = (
    formats.money,
    formats.plain,
    formats.count,
    formats.share,
    formats.rate,
    formats.day,
    formats.short_day,
    formats.moment,
    formats.month,
)


def render(request: Request, template: str, status: int = 200, /, **context: Any) -> HTMLResponse:
    """The page of `template`, a path below templates/, for the reader of `request`."""
    locale = i18n.locale_of(request)
    text = environment(str(locale)).get_template(template)
    return HTMLResponse(
        text.render(
            request=request,
            user=getattr(request.state, "user", None),
            csrf=csrf_token(request),
            preferences=preferences(request),
            **context,
        ),
        status,
    )


def render_instead(request: Request, template: str, status: int, /, **context: Any) -> HTMLResponse:
    """A page that takes the place of the whole one, whatever part of it htmx asked for."""
    response = render(request, template, status, **context)
    if "hx-request" in request.headers:
        response.headers.update({"HX-Retarget": "body", "HX-Reswap": "innerHTML", "HX-Push-Url": "false"})
    return response


@cache
def environment(locale: str) -> Environment:
    """What reads templates for a locale; amounts and dates are filters there, by the names in `formats`."""
    parsed = Locale.parse(locale)
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        extensions=["jinja2.ext.i18n"],
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["ext.i18n.trimmed"] = True
    made.install_gettext_translations(i18n.translations(parsed.language), newstyle=True)  # type: ignore[attr-defined]
    made.filters |= {one.__name__: partial(one, locale=parsed) for one in _FORMATS}
    made.filters |= {"told": partial(told, locale=parsed), "capital": _capital}
    made.filters["evidence"] = partial(i18n.evidence, language=parsed.language)
    made.globals |= {
        "static": static,
        "language": parsed.language,
        "tag": locale.replace("_", "-"),
        "languages": i18n.LANGUAGES,
    }
    return made


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def prepare() -> None:
    """Reads all templates for all locales."""
    for locale in i18n.LOCALES:
        made = environment(locale)
        for name in made.list_templates():
            made.get_template(name)


@cache
def static(name: str) -> str:
    """The address of a file of static/; it changes with what the file holds."""
    return f"/static/{name}?{sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
