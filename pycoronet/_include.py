"""Where the header of the C API lies."""

from pathlib import Path


def get_include() -> str:
    """Return the folder of pycoronet.h, for the include path of who builds an extension.

    An absolute path. Nothing has to be linked: pycoronet_import() in the header finds the
    functions when the program runs. Never switches.

    Source: pycoronet's own.
    """
    return str(Path(__file__).resolve().with_name("include"))
