"""
Train item factors by implicit alternating least squares. Requests fold users into these factors.

    minimise  sum over observed (u,i)  c_ui (1 - x_u.y_i)^2
            + sum over all (u,i)       v_i (x_u.y_i)^2
            + ridge sum_u |x_u|^2 + sum_i ridge_i |y_i|^2

c_ui    share of the user's attention that the item got, relative to the user's other items (mean 1)
v_i     weight of a missing interaction; it grows with the popularity of the item, because ignoring a well-known
        item is more informative
ridge_i grows with the frequency of the item; its mean over the catalogue is *ridge*

The ridge of users is not scaled, because each request computes the user vector from the history (see
recrank/fold_in.py).

Sources: Hu, Koren & Volinsky 2008 (model); He et al. 2016 (popularity-aware v_i); Rendle et al. 2022,
"Revisiting the performance of iALS" (frequency-scaled ridge, small initial factors, tuned v).
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from offline.solver import solve_rows, weighted_gram
from topk.item_table import F32, F64, I64

# Outside this range of catalogue sizes, more factors cost more than they gain. The lower limit was measured on Last.fm;
# the upper one bounds the cost of scoring a request.
_SMALL_CATALOGUE, _HUGE_CATALOGUE = 4096, 300_000


@dataclass(frozen=True, slots=True)
class AlsSettings:
    """
    The hyper-parameters of the factors. The defaults were chosen on validation splits of Last.fm 2k.

    Attributes:
        factors: Dimension D of the vectors.
        epochs: Passes over users and items; the results of 5 to 12 differ by less than those of two seeds.
        ridge: Shrinkage, in units of observed interactions; the first parameter to search.
        unobserved_weight: Mean of v_i; the second parameter to search.
        popularity_exponent: v_i is proportional to count_i to this power; 0 is plain iALS.
        frequency_exponent: ridge_i is proportional to (count_i + unobserved_weight * users) to this power.
        weight_exponent: c_ui = exp(weight_exponent * z), where z is the user's standardised log1p(weight); 0 ignores
            weights.
        init_scale: Root mean square length of the initial item vectors.
        seed: Seed of the initial item vectors.
    """

    factors: int = 128
    epochs: int = 8
    ridge: float = 3.0
    unobserved_weight: float = 0.0175
    popularity_exponent: float = 0.28
    frequency_exponent: float = 0.8
    weight_exponent: float = 0.42
    init_scale: float = 0.1
    seed: int = 0


def suggest_settings(users: int, items: int, interactions: int) -> AlsSettings:
    """
    Return initial settings for data of this size; a search varies them by factors of 1.5.

    The ridge must suppress the noise. A random matrix of the same density has the largest singular value
    sqrt(density) (sqrt(users) + sqrt(items)). A ridge of 0.4 times this value reached the searched optimum within
    1.5 % on Last.fm 2k and on two variants of MovieLens 100k.
    """
    density = interactions / (users * items)
    noise = np.sqrt(density) * (np.sqrt(users) + np.sqrt(items))
    return AlsSettings(
        factors=128 if _SMALL_CATALOGUE < items < _HUGE_CATALOGUE else 64,
        ridge=float(0.4 * noise),
        unobserved_weight=float(0.43 * np.sqrt(density)),
    )


@dataclass(frozen=True, slots=True)
class AlsModel:
    """
    Item factors, rotated so that the part of the normal equations that all users share is diagonal.

    Attributes:
        items: (I, D) float32; columns by falling eigenvalue.
        gram: (D,) float32; diagonal of sum_i v_i y_i y_i^T.
        ridge: Ridge of the users.
        users: (U, D) float32; the training users, folded in with equal weights, as in a request.
        counts: (I,) int64; users per item.
    """

    items: F32
    gram: F32
    ridge: float
    users: F32
    counts: I64


def train_als(
    interactions: csr_array,
    settings: AlsSettings,
    *,
    start: F32 | None = None,
    workers: int = 2,
    progress: Callable[[range], Iterable[int]] = iter,
) -> AlsModel:
    """
    Fit item factors to *interactions*.

    The same interactions and settings give the same bytes on one machine for any number of *workers*, because blocks
    of rows are independent and BLAS runs with one thread.

    Args:
        interactions: (U, I) with positive weights (counts, seconds, ratings), sorted indices, no duplicates.
        settings: Hyper-parameters.
        start: (I, D) item vectors of an earlier model, zeros for items that it does not contain. They need one epoch.
            None draws random vectors.
        workers: Threads that solve blocks of rows.
        progress: Iterates over the epochs, for example with a progress bar.

    Cost: per epoch and side, the sum over rows with n entries of min(n^2 D, n D^2) + min(n, D)^3 / 3 multiply-adds;
        2 (U + I) D floats of memory in addition to the interactions.
    """
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        return _train(interactions, settings, start, pool, progress)


def _train(
    interactions: csr_array,
    settings: AlsSettings,
    start: F32 | None,
    pool: ThreadPoolExecutor,
    progress: Callable[[range], Iterable[int]],
) -> AlsModel:
    users, items = interactions.shape
    counts = np.bincount(interactions.indices, minlength=items).astype(np.int64)
    unobserved = unobserved_weights(counts, settings)
    item_ridge = item_ridges(counts, users, settings)
    user_ridge = np.full(users, settings.ridge)
    by_user = _with_data(interactions, attention(interactions, settings.weight_exponent))
    by_item = csr_array(by_user.T.tocsr())
    everyone, uniform = np.ones(users, np.float32), np.ones(users)

    y = _draw(items, settings) if start is None else start
    for _ in progress(range(settings.epochs if start is None else 1)):
        x = solve_rows(by_user, y, column_weights=unobserved, row_scale=uniform, ridge=user_ridge, pool=pool)
        y = solve_rows(by_item, x, column_weights=everyone, row_scale=unobserved, ridge=item_ridge, pool=pool)

    gram, basis = weighted_gram(y, unobserved)
    y = np.ascontiguousarray(y @ basis)
    binary = _with_data(interactions, np.ones(interactions.nnz, np.float32))
    x = solve_rows(binary, y, column_weights=unobserved, row_scale=uniform, ridge=user_ridge, pool=pool)
    return AlsModel(items=y, gram=gram, ridge=settings.ridge, users=x, counts=counts)


def _draw(items: int, settings: AlsSettings) -> F32:
    generator = np.random.default_rng(settings.seed)
    scale = settings.init_scale / np.sqrt(settings.factors)
    return np.asarray(generator.standard_normal((items, settings.factors)) * scale, np.float32)


def attention(interactions: csr_array, exponent: float) -> F32:
    """
    Return the confidence of each stored interaction, (nnz,) float32 in the order of *interactions*, with mean 1.

    It is exp(exponent * z), where z is log1p(weight), standardised per user. A user with equal weights gets equal
    confidences.
    """
    sizes = np.diff(interactions.indptr)
    user = np.repeat(np.arange(len(sizes)), sizes)
    size = np.maximum(sizes, 1)
    log = np.log1p(interactions.data.astype(np.float64))
    centred = log - (np.bincount(user, log, len(sizes)) / size)[user]
    spread = np.sqrt(np.bincount(user, centred**2, len(sizes)) / size)[user]
    confidence = np.exp(exponent * centred / np.maximum(spread, 0.1))
    return np.asarray(confidence / confidence.mean(), np.float32)


def unobserved_weights(counts: I64, settings: AlsSettings) -> F64:
    """Return v_i, (I,) float64 with mean *unobserved_weight*; an item without interactions counts as half a user."""
    raised = np.maximum(counts, 0.5) ** settings.popularity_exponent
    return np.asarray(settings.unobserved_weight * raised / raised.mean(), np.float64)


def item_ridges(counts: I64, users: int, settings: AlsSettings) -> F64:
    """Return ridge_i, (I,) float64 with mean *ridge*."""
    raised = (counts + settings.unobserved_weight * users) ** settings.frequency_exponent
    return np.asarray(settings.ridge * raised / raised.mean(), np.float64)


def _with_data(matrix: csr_array, data: F32) -> csr_array:
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
