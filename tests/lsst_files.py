"""Files of Rubin's software, as astropy and json write them in the documented layouts."""

import json

import numpy as np
from astropy.io import fits


def archive(*objects):
    """The HDUs of objects, each (id, class name, [tables]), a table being columns (name, format, value) of one row."""
    index, tables = [], []
    for identity, name, parts in objects:
        for k, columns in enumerate(parts):
            tables.append((name, columns))
            index.append((identity, len(tables), k, 0, 1, name, "lsst.somewhere"))
    formats = ["J", "J", "J", "J", "J", "64A", "64A"]
    names = ["id", "cat.archive", "cat.persistable", "row0", "nrows", "name", "module"]
    columns = [
        fits.Column(n, f, array=list(values))
        for n, f, values in zip(names, formats, zip(*index, strict=True), strict=True)
    ]
    cards = fits.Header({"EXTTYPE": "ARCHIVE_INDEX", "AR_CATN": 0, "AR_NCAT": len(tables) + 1})
    hdus = [fits.BinTableHDU.from_columns(columns, cards, name="ARCHIVE_INDEX")]
    for name, values in tables:
        columns = [fits.Column(n, f, array=[v]) for n, f, v in values]
        hdus.append(fits.BinTableHDU.from_columns(columns, fits.Header({"EXTTYPE": "ARCHIVE_DATA"}), name=name))
    return hdus


def point(name, x, y, form="J"):
    return [(f"{name}_x", form, x), (f"{name}_y", form, y)]


def psfex(cube, step, context):
    n, ny, nx = cube.shape
    sizes = [("ndim", "J", 2), ("ngroup", "J", 1), ("ncoeff", "J", n), ("_size_size", "J", 3)]
    sizes += [("_comp_size", "J", cube.size), ("_context_size", "J", 2)]
    sizes += [*point("averagePosition", 1e3, 2e3, "D"), ("_pixstep", "E", step)]
    arrays = [
        ("group", "2J", [0, 0]),
        ("degree", "1J", 1),
        ("basis", f"{n}D", np.zeros(n)),
        ("coeff", f"{n}D", np.ones(n)),
    ]
    arrays += [("_size", "3J", [nx, ny, n]), ("_comp", f"{cube.size}E", cube.ravel())]
    arrays += [("_context_first", "2D", context[0]), ("_context_second", "2D", context[1])]
    return [sizes, arrays]


def kernel(image, identity):
    ny, nx = image.shape
    columns = [
        *point("dimensions", nx, ny),
        *point("center", nx // 2, ny // 2),
        ("image", f"{image.size}D", image.ravel()),
    ]
    return (identity, "FixedKernel", [columns])


def blob(shape, sx, sy, dx=0.0):
    y, x = (np.arange(n) - n // 2 for n in shape)
    return np.exp(-0.5 * (((x[None, :] - dx) / sx) ** 2 + (y[:, None] / sy) ** 2))


def save(path, *hdus, primary=None):
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary or {})), *hdus]).writeto(path)
    return path


CUBE = np.stack([blob((31, 27), 3.0, 4.0), 0.2 * blob((31, 27), 5.0, 3.0), 0.3 * blob((31, 27), 3.0, 5.0)]).astype("f4")
CONTEXT = ([1000.0, 1500.0], [2000.0, 3000.0])


def lanczos5(samples, at):
    """The Lanczos-5 function by its formula."""
    t = at[:, None] - np.arange(samples)[None, :]
    weights = np.where(abs(t) < 5, np.sinc(t) * np.sinc(t / 5), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def afw_file(path):
    return save(path, *archive((1, "PsfexPsf", psfex(CUBE, 0.7, CONTEXT))))


SCALE = 0.2


def piff_terms():
    """The coefficients (samples, terms of order 2 in u and v) of 15 x 15 samples."""
    base = blob((15, 15), 1.8, 1.5, 0.2)
    slopes = [base, *(2e-4 * (k + 1) * base * blob((15, 15), 3.0, 2.0 + k, 1.0) for k in range(2))]
    bends = [3e-7 * (k + 1) * base * blob((15, 15), 2.0 + k, 3.0) for k in range(3)]
    return np.stack([t.ravel() for t in (*slopes, *bends)], axis=1)


def piff_grid():
    """A Piff model as Rubin makes them: pixels of the image's size, on a plane that is only scaled."""
    import galsim
    import piff

    model = piff.PixelGrid(scale=SCALE, size=15, interp="Lanczos(11)", centered=False)
    terms = piff.BasisPolynomial(order=2)
    terms.q = piff_terms()
    psf = piff.SimplePSF(model, terms)
    psf.set_context({0: galsim.PixelScale(SCALE)}, None)
    return psf


def lsst_images_file(path):
    """The PSF above in the JSON that lsst.images writes."""
    model = {"type": "PixelGrid", "scale": SCALE, "size": 15, "centered": False, "fit_flux": False}
    solution = {"columns": [{"name": "q", "data": {"data": piff_terms()[None].tolist(), "datatype": "float64"}}]}
    objects = {"model": {}, "interp": {"tables": {"solution": {"metadata": {}, "table": solution}}}}
    whole = {
        "structs": {
            "model": model | {"interp": "galsim.Lanczos(11, True, gsparams=galsim.GSParams(128,8192))"},
            "interp": {"type": "BasisPolynomial", "order": 2, "max_order": None, "keys": ["u", "v"]},
        },
        "wcs": {"wcs": {"scale": SCALE, "wcs_type": "pixel_scale"}},
        "objects": objects,
    }
    node = {
        "schema_version": "1.0.0", "stamp_size": 15,
        "bounds": {"y": {"start": 0, "stop": 800}, "x": {"start": 0, "stop": 1000}},
        "piff": {"structs": {"piff": {"type": "Simple"}}, "objects": {"piff": whole}},
        "schema_url": "https://images.lsst.io/schemas/piff_psf-1.0.0",
    }  # fmt: skip
    path.write_text(json.dumps(node))
    return path
