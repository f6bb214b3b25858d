"""A slow second writing of the published networks: numpy, complex numbers, one edge at a time.

Only for tests. It follows the equations literally (no fused contraction, no real arithmetic for complex numbers)
and shares no code with the package.
"""

from __future__ import annotations

import numpy as np

LN_EPS = 1e-5


def random_weights(config: dict, variant: str, seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict with the published names and shapes; every tensor random, so that every tensor matters."""
    rng = np.random.default_rng(seed)
    L, H, A, R = (config[k] for k in ("num_layers", "hidden_channels", "head", "num_radial"))
    X, M, K, C = (config[k] for k in ("main_chi1", "mp_chi1", "chi2", "hidden_channels_chi"))
    weights: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, scale: float = 1.0, centre: float = 0.0) -> None:
        weights[name] = centre + scale * rng.normal(size=shape)

    def linear(name: str, out: int, inputs: int, bias: bool = True) -> None:
        add(f"{name}.weight", out, inputs, scale=inputs**-0.5)
        if bias:
            add(f"{name}.bias", out, scale=0.1)

    add("a", 108, scale=0.1, centre=1.0)
    add("b", 108, scale=0.1)
    add("kernel1", H, 2 * X)
    add("kernels_real", L, H, X, X)
    add("kernels_imag", L, H, X, X)
    add("z_emb.weight", 95, H)
    add("neighbor_emb.embedding.weight", 95, H)
    if variant == "gauss":
        start = np.exp(-config["cutoff"])
        weights["radial_emb.means"] = np.linspace(start, 1, R)
        weights["radial_emb.betas"] = np.full(R, (2 / R * (1 - start)) ** -2)
    else:
        weights["radial_emb.bessel_weights"] = np.pi * np.arange(1, R + 1) + 0.1 * rng.normal(size=R)
    linear("radial_lin.0", H, R)
    linear("radial_lin.2", H, H)
    linear("S_vector.lin1.0", H, H)
    linear("lin.0", H // 4, 3)
    linear("lin.2", 1, H // 4)
    for t in range(L):
        m = f"message_layers.{t}."
        add(m + "diachi1", M)
        add(m + "kernel_real", A + 1, C // A, K)
        add(m + "kernel_imag", A + 1, C // A, K)
        add(m + "unitary", M, M)
        shapes = {
            "scale": (2 * C, H),
            "dir_proj.0": (3 * H, 3 * H + R),
            "dir_proj.2": (3 * H, 3 * H),
            "x_proj.0": (H, H),
            "x_proj.2": (3 * H, H),
            "rbf_proj": (3 * H, R),
            "diagonal.0": (C // 2, 3 * H),
            "diagonal.2": (K, C // 2),
            "scale2.0": (H // 2, M),
            "fc_mps": (M, M),
            "fc_dx": (H, M),
            "dia": (M, M),
        }
        for name, (out, inputs) in shapes.items():
            linear(m + name, out, inputs)
        add(m + "x_layernorm.weight", H, scale=0.1, centre=1.0)
        add(m + "x_layernorm.bias", H, scale=0.1)
        if config.get("has_norm_before_flag", True) or config.get("has_norm_after_flag", False):
            size = M + H if config.get("has_norm_before_flag", True) else M
            add(m + "dx_layer_norm.weight", size, scale=0.1, centre=1.0)
            add(m + "dx_layer_norm.bias", size, scale=0.1)
        linear(f"FTEs.{t}.vec_proj", 2 * H, H, bias=False)
        linear(f"FTEs.{t}.xvec_proj.0", H, 2 * H)
        linear(f"FTEs.{t}.xvec_proj.2", 3 * H, H)
    linear("last_layer", 1, H)
    linear("last_layer_quantum", 1, 2 * X)
    return weights


def silu(x):
    return x / (1 + np.exp(-x))


def norm(x):
    return (x - x.mean()) / np.sqrt(x.var() + LN_EPS)


def atomic_energies(weights, config, variant, positions, numbers, edges, shifts, rotary=True):
    """Energies of the atoms from Cartesian positions (N, 3), edges (2, E) and Cartesian shifts (E, 3)."""
    L, H, A = (config[k] for k in ("num_layers", "hidden_channels", "head"))
    X, M, C = config["main_chi1"], config["mp_chi1"], config["hidden_channels_chi"]
    rc = config["cutoff"]
    square = variant == "square"
    eps = 1e-9 if square else config["eps"]
    N, E = len(numbers), edges.shape[1]

    def lin(name, x):
        bias = weights.get(f"{name}.bias", 0.0)
        return weights[f"{name}.weight"] @ x + bias

    def two(name, x):
        return lin(f"{name}.2", silu(lin(f"{name}.0", x)))

    r = np.array([positions[edges[0, e]] + shifts[e] - positions[edges[1, e]] for e in range(E)]).reshape(E, 3)
    d = np.linalg.norm(r, axis=1)
    u = r / (d + eps)[:, None]
    cut = 0.5 * (np.cos(np.pi * d / rc) + 1)
    if variant == "gauss":
        means, betas = weights["radial_emb.means"], weights["radial_emb.betas"]
        phi = [cut[e] * np.exp(-betas * (np.exp(-d[e]) - means) ** 2) for e in range(E)]
    else:
        phi = [2 / rc * np.sin(weights["radial_emb.bessel_weights"] * d[e] / rc) / d[e] for e in range(E)]
    g = [cut[e] * two("radial_lin", phi[e]) for e in range(E)]
    incoming = [[e for e in range(E) if edges[1, e] == i] for i in range(N)]

    species = [norm(weights["z_emb.weight"][z]) for z in numbers]
    s = [species[i].copy() for i in range(N)]
    for i in range(N):
        for e in incoming[i]:
            s[i] += g[e] * norm(weights["neighbor_emb.embedding.weight"][numbers[edges[0, e]]])
    P = [np.zeros((3, H)) for _ in range(N)]
    for i in range(N):
        for e in incoming[i]:
            P[i] += np.outer(u[e], g[e] * silu(norm(lin("S_vector.lin1.0", s[edges[0, e]]))))

    D = []
    for e in range(E):
        j, i = edges[:, e]
        if square:
            k = np.cross(r[e], np.mean([r[f] for f in incoming[i]], axis=0))
        else:
            mean = np.mean([positions[edges[0, f]] for f in incoming[i]], axis=0)
            k = np.cross(positions[i] - mean, positions[j] - mean)
        frame = np.stack([u[e], k, np.cross(u[e], k)], axis=1)
        sigma = []
        for p in (i, j):
            q = P[p].T @ frame
            q[:, 1] = q[:, 1] ** 2 if square else np.abs(q[:, 1])
            sigma.append(np.array([(two("lin", q[h])[0] + q[h, 0]) / np.sqrt(H) for h in range(H)]))
        D.append(np.concatenate([cut[e] * sigma[0], cut[e] * sigma[1], g[e], phi[e]]))

    kernel1 = weights["kernel1"]
    Q = [species[i] @ kernel1[:, :X] + 1j * (species[i] @ kernel1[:, X:]) for i in range(N)]
    v = [np.zeros((3, H)) for _ in range(N)]
    rho = None
    for t in range(L):
        m = f"message_layers.{t}."
        xh = []
        for i in range(N):
            turned = s[i]
            if rho is not None and rotary:
                y = (s[i][: H // 2] + 1j * s[i][H // 2 :]) * rho[i]
                turned = np.concatenate([y.real, y.imag])
            normed = norm(turned) * weights[m + "x_layernorm.weight"] + weights[m + "x_layernorm.bias"]
            xh.append(two(m + "x_proj", normed))
        kernel = (weights[m + "kernel_real"] + 1j * weights[m + "kernel_imag"]) / np.sqrt(H // A)
        messages, moved = [], []
        for e in range(E):
            j = edges[0, e]
            B = lin(m + "rbf_proj", phi[e]) * two(m + "dir_proj", D[e])
            x, y, n = np.split(xh[j] * B, 3)
            y = y / np.sqrt(3)
            expanded = lin(m + "scale", x)
            psi = expanded[:C].reshape(A, C // A) + 1j * expanded[C:].reshape(A, C // A)
            psi = np.concatenate([np.ones((1, C // A)), psi])
            h = np.einsum("ab,abk->k", psi, kernel)
            alpha = silu(two(m + "diagonal", B))
            delta = np.array([lin(m + "dia", a * weights[m + "diachi1"] + 1) for a in alpha])
            o = h @ delta
            theta = np.arctan2(lin(m + "fc_mps", o.imag), lin(m + "fc_mps", o.real))
            messages.append(np.concatenate([theta, x]))
            moved.append((v[j] * y + np.outer(u[e], n)) / np.sqrt(H))
        rho = []
        for i in range(N):
            total = sum((messages[e] for e in incoming[i]), np.zeros(M + H))
            if config.get("reduce_mode", "sum") == "mean" and incoming[i]:
                total = total / len(incoming[i])
            affine = (weights.get(m + "dx_layer_norm.weight"), weights.get(m + "dx_layer_norm.bias"))
            if config.get("has_norm_before_flag", True):
                total = norm(total) * affine[0] + affine[1]
            theta, ds = total[:M], total[M:]
            if config.get("has_norm_after_flag", False):
                theta = norm(theta) * affine[0] + affine[1]
            rho.append(np.exp(1j * lin(m + "scale2.0", theta)))
            s[i] = s[i] + ds
        v = [v[i] + sum((moved[e] for e in incoming[i]), np.zeros((3, H))) for i in range(N)]
        step = weights["kernels_real"][t] + 1j * weights["kernels_imag"][t]
        for i in range(N):
            Q[i] = np.einsum("hkl,h,l->k", step, s[i], Q[i])
            Q[i] = Q[i] / ((1e-9 if square else 0.0) + np.abs(Q[i]))
            p, q = np.split(v[i] @ weights[f"FTEs.{t}.vec_proj.weight"].T, 2, axis=1)
            eta = (p**2).sum(0) if square else np.abs(p).sum(0)
            dot = (p * q).sum(0) / np.sqrt(H)
            f1, f2, f3 = np.split(two(f"FTEs.{t}.xvec_proj", np.concatenate([s[i], eta])), 3)
            s[i] = s[i] + (f1 + f2 + dot) / np.sqrt(2)
            v[i] = v[i] + f3 * q
    energies = []
    for i in range(N):
        raw = lin("last_layer", s[i]) + lin("last_layer_quantum", np.concatenate([Q[i].real, Q[i].imag])) / X
        energies.append(weights["a"][numbers[i]] * raw[0] + weights["b"][numbers[i]])
    return np.array(energies)


def zbl_energy(positions, numbers, edges, shifts) -> float:
    """Screened repulsion of all pairs in eV."""
    w = np.array([0.187, 0.3769, 0.189, 0.081, 0.003, 0.037, 0.0546, 0.0715])
    w = w / w.sum()
    b = np.array([3.20, 1.10, 0.102, 0.958, 1.28, 1.14, 1.69, 5.0])
    total = 0.0
    for (j, i), shift in zip(edges.T, shifts, strict=True):
        d = np.linalg.norm(positions[j] + shift - positions[i])
        if d < 1:
            a = 1.001 * 0.8854 * 0.529177210903 / (numbers[i] ** 0.6032 + numbers[j] ** 0.6032)
            taper = 0.5 * (np.cos(np.pi * d) + 1)
            pair = numbers[i] * numbers[j] * 14.399645478425 / d * (w * np.exp(-b * d / a)).sum() * taper
            total += 0.5 * pair
    return total
