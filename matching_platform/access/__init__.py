"""Who may use the desk and its API: users, sessions, tokens, roles, and the audit log."""

from matching_platform.access.access import Access
from matching_platform.access.users import AccessError, LoginError, PasswordError, Role, TooManyError, User

__all__ = ["Access", "AccessError", "LoginError", "PasswordError", "Role", "TooManyError", "User"]
