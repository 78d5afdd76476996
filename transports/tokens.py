"""Tokens, under the path that documentation names; they live in `access`."""

from .access.token_key import TokenKey as TokenKey
