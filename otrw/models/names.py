"""Names of nets: those of this package, and those of two libraries, as `torchvision/resnet50` and `timm/vit_small_patch16_224`.

Imports no library: a config is checked without loading torch.
"""

import difflib
import re

BUILT_IN = ("small", "resnet20", "resnet32", "resnet44", "resnet56", "linear", "mlp")
"""small: three convolutions with GroupNorm, for digits. resnet*: CIFAR nets of He et al. linear and mlp:
for embeddings."""
LIBRARIES = ("torchvision", "timm")
"""What stands before the slash."""
_NAME_IN_LIBRARY = re.compile(r"[A-Za-z0-9_.\-]+")


def library_of(name: str) -> str:
    """torchvision, timm, or an empty string for a net of this package."""
    return name.partition("/")[0] if "/" in name else ""


def is_possible(name: str) -> bool:
    """Whether a name is one of this package, or could be one of a library; only the library itself knows."""
    library, _, rest = name.partition("/")
    return name in BUILT_IN or (library in LIBRARIES and _NAME_IN_LIBRARY.fullmatch(rest) is not None)


def remedy_for(name: str, known: tuple[str, ...] = ()) -> str:
    """What to say of a name that is none: the nearest one, or what there is.

    Args:
        name: what was asked for.
        known: names of the library that it begins with; empty where that is not known.
    """
    library, slash, rest = name.partition("/")
    if slash and not known:
        near = difflib.get_close_matches(library, LIBRARIES, n=1)
        if near and near[0] != library:
            return f"did you mean {near[0]}/{rest}?"
    prefix = f"{library}/" if known else ""
    near = difflib.get_close_matches(rest if known else name, known or BUILT_IN, n=1, cutoff=0.5)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return f"there are {', '.join(BUILT_IN)}, torchvision/NAME and timm/NAME"
