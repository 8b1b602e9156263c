"""The checker of types and shapes while tests run: beartype, where an int is good enough for a float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
