"""Reading netCDF files that somebody else may have made: what they hold is in them, and in them alone."""

from pathlib import Path

import h5py
import xarray as xr

from interp.errors import ResultError
from interp.files import regular

RATIO = 1100
"""How many times larger than its file all arrays together may be; deflate packs no better than 1032 to 1."""


def read_netcdf(path: Path) -> xr.Dataset:
    """What a netCDF file holds.

    Raises:
        ResultError: no regular file, or a damaged one; one with links, with arrays in other files or made of those of others (HDF5's
            external storage and virtual datasets), with groups, or with arrays that are larger than the file can hold.
    """
    try:
        _check_own(regular(path))
        return xr.load_dataset(path, engine="h5netcdf", decode_times=False)
    except ResultError:
        raise
    except Exception as error:  # a damaged file makes HDF5 and its readers raise almost any
        raise ResultError(
            f"{path} cannot be read as a result (netCDF, as `analyses.save` writes it): {error or type(error).__name__}"
        ) from error


def _check_own(path: Path) -> None:
    size, room = 0, RATIO * path.stat().st_size
    with h5py.File(path, "r") as file:
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise ResultError(f"{path}: {name!r} is a link, maybe to another file, and is not followed.")
            array = file[name]
            if not isinstance(array, h5py.Dataset):
                raise ResultError(f"{path}: {name!r} is no array; a result has no groups.")
            if array.external or array.is_virtual:
                raise ResultError(f"{path}: the numbers of {name!r} lie in another file, and are not read.")
            size += array.size * array.dtype.itemsize
            if size > room:
                raise ResultError(
                    f"{path}: {name!r} is said to have the shape {array.shape}, which no file of that size holds, with what is before it."
                )
