"""Right singular vectors of a batch of matrices, with gradients that stay finite."""

import torch
from torch import Tensor

SMALLEST_GAP = 1e-4  # of the largest squared singular value


def right_vectors(matrices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first singular vectors `[B, n, count]` of `[B, m, n]`, and the values `[B, count]`.

    They come from the eigenvectors of the smaller of the two Gram matrices. The gradient is that
    of first-order perturbation: with the eigenvalues λ of AᵀA = VΛVᵀ, a change dA turns v_j by
    Σ_i v_i (v_iᵀ (dAᵀA + AᵀdA) v_j) / (λ_j - λ_i). It is infinite where two values are equal;
    here 1 / gap becomes gap / (gap² + δ²), δ = 1e-4 of the largest λ, and 0 for zero matrices.
    The signs of the vectors are arbitrary.
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
    """1 / gap, bounded where the gap is small relative to the largest eigenvalue."""
    bound = (SMALLEST_GAP * squares[:, None, :1]).square()
    return gaps / (gaps.square() + bound).clamp_min(torch.finfo(gaps.dtype).tiny)
