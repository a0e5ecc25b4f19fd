"""The arrays that the room works on; docstrings give their shapes."""

import numpy as np
import numpy.typing as npt

Integer = int | np.int64
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
