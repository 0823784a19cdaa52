"""pix2pixHD's networks and step once more, as plain functions of state dicts: what the tests compare with.

Written from the published structure (NVIDIA/pix2pixHD, BSD licence), sharing nothing with the package: a
table of the names and shapes that a configuration has, what the networks compute, and steps in the
official order of work. The golden arrays hold these functions to the published networks.
"""

import torch
from torch.nn import functional as F

STEP_SETTINGS = {"lr": 2e-4, "betas": (0.5, 0.999), "lambda_feat": 10.0, "steps": 3}


def is_local(config):
    return config["netG"] == "local"


def generator_shapes(config):
    """Names and shapes of a generator's state dict."""
    batch, local_enhancers = (
        config.get("norm") == "batch",
        config["n_local_enhancers"] if is_local(config) else 0,
    )
    bands_in, bands_out = config["input_nc"], config["output_nc"]
    width, downs = config["ngf"] * 2**local_enhancers, config["n_downsample_global"]
    table = Table(batch)
    table.conv("model.1", bands_in, width, 7)
    at = 4
    for _ in range(downs):
        table.conv(f"model.{at}", width, width * 2, 3)
        at, width = at + 3, width * 2
    for _ in range(config["n_blocks_global"]):
        table.block(f"model.{at}", width)
        at += 1
    for _ in range(downs):
        table.conv(f"model.{at}", width, width // 2, 3, transposed=True)
        at, width = at + 3, width // 2
    if not local_enhancers:
        table.conv(f"model.{at + 1}", width, bands_out, 7, normed=False)
    for n in range(1, local_enhancers + 1):
        width = config["ngf"] * 2 ** (local_enhancers - n)
        table.conv(f"model{n}_1.1", bands_in, width, 7)
        table.conv(f"model{n}_1.4", width, width * 2, 3)
        for k in range(config["n_blocks_local"]):
            table.block(f"model{n}_2.{k}", width * 2)
        table.conv(f"model{n}_2.{config['n_blocks_local']}", width * 2, width, 3, transposed=True)
        if n == local_enhancers:
            table.conv(f"model{n}_2.{config['n_blocks_local'] + 4}", width, bands_out, 7, normed=False)
    return table.shapes


def discriminator_shapes(config):
    """Names and shapes of a discriminator's state dict."""
    table = Table(config.get("norm") == "batch")
    for scale in range(config["num_D"]):
        bands, flat = config["input_nc"], 0
        for layer in range(config["n_layers_D"] + 2):
            last = layer == config["n_layers_D"] + 1
            out = 1 if last else config["ndf"] if layer == 0 else min(bands * 2, 512)
            normed = 0 < layer <= config["n_layers_D"]
            name = f"scale{scale}_layer{layer}.0" if with_features(config) else f"layer{scale}.{flat}"
            table.conv(name, bands, out, 4, normed=normed)
            bands, flat = out, flat + (3 if normed else 2)
    return table.shapes


def with_features(config):
    return config.get("getIntermFeat", True)


class Table:
    """Shapes by name, in the order of the published state dict."""

    def __init__(self, batch):
        self.batch, self.shapes = batch, {}

    def conv(self, name, bands_in, bands_out, side, normed=True, transposed=False):
        bands = (bands_in, bands_out) if transposed else (bands_out, bands_in)
        self.shapes |= {f"{name}.weight": (*bands, side, side), f"{name}.bias": (bands_out,)}
        if normed and self.batch:
            body, at = name.rsplit(".", 1)
            parts = ("weight", "bias", "running_mean", "running_var")
            self.shapes |= {f"{body}.{int(at) + 1}.{part}": (bands_out,) for part in parts}
            self.shapes[f"{body}.{int(at) + 1}.num_batches_tracked"] = ()

    def block(self, name, width):
        self.conv(f"{name}.conv_block.1", width, width, 3)
        self.conv(f"{name}.conv_block.5", width, width, 3)


def drawn_state(shapes, seed, dtype=torch.float32):
    """A state dict of these shapes with random numbers of a usual size."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        noise = torch.randn(shape, generator=draw, dtype=torch.float64)
        level = 1.0 if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1) else 0.0
        state[name] = (level + (0.02 if level else 0.05) * noise).to(dtype)
    return state


def _conv(state, name, x, **options):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def _norm(state, name, x):
    """The norm behind convolution `name`: batch norm in training, or instance norm."""
    body, at = name.rsplit(".", 1)
    norm = f"{body}.{int(at) + 1}"
    if f"{norm}.weight" not in state:
        return F.instance_norm(x)
    state[f"{norm}.num_batches_tracked"] += 1
    averages = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    return F.batch_norm(x, *averages, state[f"{norm}.weight"], state[f"{norm}.bias"], training=True)


def _reflected(x, n):
    return F.pad(x, (n, n, n, n), mode="reflect")


def _first(state, body, x):
    return F.relu(_norm(state, f"{body}.1", _conv(state, f"{body}.1", _reflected(x, 3))))


def _down(state, name, x):
    return F.relu(_norm(state, name, _conv(state, name, x, stride=2, padding=1)))


def _block(state, name, x):
    inner = _norm(state, f"{name}.conv_block.1", _conv(state, f"{name}.conv_block.1", _reflected(x, 1)))
    name = f"{name}.conv_block.5"
    return x + _norm(state, name, _conv(state, name, _reflected(F.relu(inner), 1)))


def _up(state, name, x):
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    grown = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    return F.relu(_norm(state, name, grown))


def _last(state, name, x):
    return torch.tanh(_conv(state, name, _reflected(x, 3)))


def _halved(x):
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def generator(config, state, x):
    """The generator's output; running averages in `state` move on."""
    local_enhancers = config["n_local_enhancers"] if is_local(config) else 0
    pyramid = [x]
    for _ in range(local_enhancers):
        pyramid.append(_halved(pyramid[-1]))
    x, at = _first(state, "model", pyramid[-1]), 4
    for _ in range(config["n_downsample_global"]):
        x, at = _down(state, f"model.{at}", x), at + 3
    for _ in range(config["n_blocks_global"]):
        x, at = _block(state, f"model.{at}", x), at + 1
    for _ in range(config["n_downsample_global"]):
        x, at = _up(state, f"model.{at}", x), at + 3
    if not local_enhancers:
        return _last(state, f"model.{at + 1}", x)
    for n in range(1, local_enhancers + 1):
        x = x + _down(state, f"model{n}_1.4", _first(state, f"model{n}_1", pyramid[local_enhancers - n]))
        for k in range(config["n_blocks_local"]):
            x = _block(state, f"model{n}_2.{k}", x)
        x = _up(state, f"model{n}_2.{config['n_blocks_local']}", x)
    return _last(state, f"model{local_enhancers}_2.{config['n_blocks_local'] + 4}", x)


def discriminator(config, state, x):
    """All features of all scales, or only the logits; running averages in `state` move on."""
    results = []
    for scale in reversed(range(config["num_D"])):
        features, flat = [x], 0
        for layer in range(config["n_layers_D"] + 2):
            name = f"scale{scale}_layer{layer}.0" if with_features(config) else f"layer{scale}.{flat}"
            y = _conv(state, name, features[-1], stride=2 if layer < config["n_layers_D"] else 1, padding=2)
            if 0 < layer <= config["n_layers_D"]:
                y, flat = _norm(state, name, y), flat + 1
            if layer <= config["n_layers_D"]:
                y, flat = F.leaky_relu(y, 0.2), flat + 2
            features.append(y)
        if not with_features(config) and config.get("use_sigmoid"):
            features[-1] = torch.sigmoid(features[-1])
        results.append(features[1:] if with_features(config) else features[-1:])
        x = _halved(x)
    return results


def official_steps(config, before, source, target):
    """Whole steps in the official order: states after them, and the four losses of each step.

    `before` is `{"G": state, "D": state}`; three passes of the discriminator, then both optimisers.
    """
    states = {name: {k: v.clone() for k, v in state.items()} for name, state in before.items()}
    optimizers = {}
    for name, state in states.items():
        weights = [state[k].requires_grad_() for k in state if k.endswith(("weight", "bias"))]
        optimizers[name] = torch.optim.Adam(weights, lr=config["lr"], betas=tuple(config["betas"]))
    losses = {}
    for step in range(config["steps"]):
        terms = _official_losses(config, states, source, target)
        losses[f"step{step}"] = {name: float(value.detach()) for name, value in terms.items()}
        sums = {
            "G": terms["G_GAN"] + terms["G_GAN_Feat"],
            "D": 0.5 * (terms["D_fake"] + terms["D_real"]),
        }
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            sums[name].backward(inputs=[w for group in optimizer.param_groups for w in group["params"]])
            optimizer.step()
    return {name: {k: v.detach() for k, v in state.items()} for name, state in states.items()}, losses


def _official_losses(config, states, source, target):
    fake = generator(config["G"], states["G"], source)

    def features(image):
        return discriminator(config["D"], states["D"], torch.cat([source, image], 1))

    detached, real, attached = features(fake.detach()), features(target), features(fake)
    share = config["lambda_feat"] * 4.0 / (config["D"]["n_layers_D"] + 1) / config["D"]["num_D"]
    pairs = [p for m, r in zip(attached, real, strict=True) for p in zip(m[:-1], r[:-1], strict=True)]
    return {
        "G_GAN": sum((scale[-1] - 1).square().mean() for scale in attached),
        "G_GAN_Feat": sum((m - r.detach()).abs().mean() * share for m, r in pairs),
        "D_real": sum((scale[-1] - 1).square().mean() for scale in real),
        "D_fake": sum(scale[-1].square().mean() for scale in detached),
    }
