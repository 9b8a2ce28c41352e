"""In a checkout the kernels lie beside the package, in `kernels/`: this file stands in for that folder.

An installed copy has the folder inside the package, and Python's import prefers a folder to this file.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernels import source_folder as source_folder
else:
    _folder = Path(__file__).resolve().parents[1] / "kernels"
    _spec = spec_from_file_location(
        __name__, _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    # import hands out whatever stands in sys.modules once this file has run: the real package.
    sys.modules[__name__] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__name__])
