"""Right singular vectors of a batch of matrices, with gradients that stay finite."""

import torch
from torch import Tensor


def right_vectors(matrices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first singular vectors `[B, n, count]` of `[B, m, n]`, and the values `[B, count]`.

    They come from the eigenvectors of the smaller of the two Gram matrices. The gradient is that
    of first-order perturbation: with the eigenvalues λ of AᵀA = VΛVᵀ, a change dA turns v_j by
    Σ_i v_i (v_iᵀ (dAᵀA + AᵀdA) v_j) / (λ_j - λ_i). It is exact where the gap λ_j - λ_i is at least
    δ = √eps of the largest λ (3e-4 in float32, 1e-8 in float64). Below, where it would grow without
    bound, 1 / gap becomes gap / δ², which is 0 for equal values and for zero matrices. The signs of
    the vectors are arbitrary.
    """
    with torch.no_grad():
        vectors, squares = _eigen(matrices)
    count = min(count, vectors.shape[2])
    selected, change = vectors[:, :, :count], matrices - matrices.detach()
    turned = change.mT @ (matrices.detach() @ selected) + matrices.detach().mT @ (change @ selected)
    within = vectors.mT @ turned
    gaps = squares[:, None, :count] - squares[:, :, None]
    result = selected + vectors @ (_inverse(gaps, squares) * within)
    if vectors.shape[2] < vectors.shape[1]:  # directions outside the row space
        outside = turned - vectors @ within
        result = result + outside * _inverse(squares[:, None, :count], squares)
    return result, squares[:, :count].sqrt()


def _eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """All right singular vectors `[B, n, min(m, n)]` and squared values, largest first."""
    rows, columns = matrices.shape[1:]
    gram = matrices.mT @ matrices if columns <= rows else matrices @ matrices.mT
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares.flip(1).clamp_min(0.0), vectors.flip(2)
    if columns > rows:
        vectors = matrices.mT @ vectors
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        vectors = vectors / torch.where(lengths > 0, lengths, 1.0)
    return vectors, squares


def _inverse(gaps: Tensor, squares: Tensor) -> Tensor:
    """1 / gap; below √eps of the largest eigenvalue it falls linearly to 0."""
    smallest = torch.finfo(gaps.dtype).eps ** 0.5 * squares[:, None, :1]
    bounded = torch.maximum(gaps.square(), smallest.square())
    return gaps / bounded.clamp_min(torch.finfo(gaps.dtype).tiny)
