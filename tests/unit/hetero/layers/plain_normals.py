"""The definition of initial values once more, in numpy and as plainly as it can be said."""

from __future__ import annotations

import numpy as np
import xxhash

F, U = np.float32, np.uint64
LOGARITHM = (0.146623701, -0.221687302, 0.253591597, -0.332482725, 0.49991405, -1.00000548)
SINE = (0.00815163553, -0.166624799, 0.999998569)
COSINE = (0.0403985344, -0.499708146, 0.999990046)


def whole(name: str, shape: tuple[int, ...], seed: int = 0, std: float = 1.0) -> np.ndarray:
    """All of a logical tensor, float32."""
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    pairs = -(-columns // 2)
    begin = xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode())
    first, second = normals(splitmix(begin, rows * pairs), F(std))
    return np.stack((first, second), -1).reshape(rows, 2 * pairs)[:, :columns].reshape(shape)


def splitmix(seed: int, count: int) -> np.ndarray:
    """The first words of a sequence."""
    z = U(seed) + np.arange(1, count + 1, dtype=U) * U(0x9E3779B97F4A7C15)
    z = (z ^ (z >> U(30))) * U(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U(27))) * U(0x94D049BB133111EB)
    return z ^ (z >> U(31))


def normals(words: np.ndarray, std: F) -> tuple[np.ndarray, np.ndarray]:
    high = (words >> U(32)).astype(np.uint32)
    radius = root(negative_log(fraction(words.astype(np.uint32)) - F(1 - 2**-24))) * std
    x = (fraction(high) - F(1.5)) * F(np.pi / 2)
    z = x * x
    sine, cosine = polynomial(SINE, z) * x, polynomial(COSINE, z)
    return signed((cosine + sine) * radius, high >> 31), signed((cosine - sine) * radius, high >> 30 & 1)


def fraction(words: np.ndarray) -> np.ndarray:
    """From 1 to 2, by the last 23 bits."""
    return (words & 0x7FFFFF | 0x3F800000).astype(np.uint32).view(F)


def signed(x: np.ndarray, negative: np.ndarray) -> np.ndarray:
    return np.where(negative == 1, -x, x)


def negative_log(x: np.ndarray) -> np.ndarray:
    exponent = (x.view(np.int32) - np.int32(0x3F3504F3)) >> 23
    f = (x.view(np.int32) - (exponent << 23)).view(F) - F(1)
    return exponent.astype(F) * F(-np.log(2)) + polynomial(LOGARITHM, f) * f


def root(x: np.ndarray) -> np.ndarray:
    y = (np.int32(0x5F3759DF) - (x.view(np.int32) >> 1)).view(F)
    for _ in range(2):
        y = y * (y * y * (F(-0.5) * x) + F(1.5))
    return x * y


def polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    total = x * F(coefficients[0])
    for coefficient in coefficients[1:-1]:
        total = (total + F(coefficient)) * x
    return total + F(coefficients[-1])
