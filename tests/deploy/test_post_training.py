"""Post-training quantisation observes ranges and changes nothing else."""

import torch

from kdrun.config.schema import NetworkConfig
from kdrun.deploy.post_training import calibrated
from kdrun.deploy.student import LoadedNetwork
from kdrun.models.build import build_network
from kdrun.models.card import NetworkCard
from kdrun.models.quantisation.quantise import quantisers_of
from kdrun.types import InputInfo, Normalisation


def test_ranges_come_from_the_images_and_weights_stay() -> None:
    torch.manual_seed(0)
    info = InputInfo(in_channels=1, image_size=(8, 8), num_classes=4)
    config = NetworkConfig(
        name="tiny", target="kdrun.models.cnn.ConvNet", kwargs={"widths": [4, 4]}
    )
    card = NetworkCard(
        name="tiny", target=config.target, kwargs=config.kwargs, taps={}, classes=tuple("abcd"),
        info=info, normalisation=Normalisation((0.5,), (0.25,)), params=0, flops=0, resize=False,
        extra={},
    )  # fmt: skip
    plain = LoadedNetwork(build_network(config, info), card)
    before = {name: value.clone() for name, value in plain.network.state_dict().items()}
    images = torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8)
    network = calibrated(plain, "w4a8", [images[:16], images[16:]])
    after = network.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    quantisers = quantisers_of(network.network)
    assert quantisers is not None
    assert quantisers_of(plain.network) is None
    assert all(quantisers.range_of(name).is_observed for name in quantisers)
    assert network.card.quantize == "w4a8"
    with torch.no_grad():
        exact, rounded = plain(images), network(images)
    assert 0 < float((exact - rounded).abs().max()) < float(exact.abs().max())
