"""The model card says what was measured, on which data."""

from typing import Any

from kdrun.deploy.formats import metadata
from kdrun.deploy.model_card import markdown
from kdrun.models.card import NetworkCard
from kdrun.runs.result import DatasetResult, RunResult
from kdrun.types import InputInfo, Normalisation

CARD = NetworkCard(
    name="tiny", target="kdrun.models.cnn.ConvNet", kwargs={}, taps={}, classes=("a", "b"),
    info=InputInfo(in_channels=3, image_size=(24, 32), num_classes=2),
    normalisation=Normalisation((0.5,) * 3, (0.25,) * 3), params=9, flops=99, resize=False,
    extra={},
)  # fmt: skip
DATA = DatasetResult(
    name="photos", train_size=100, val_size=10, test_size=20, fingerprint="0123456789abcdef"
)


def card(dataset: dict[str, Any], data: DatasetResult, result: RunResult | None = None) -> str:
    figures = {"top1": 50.0}
    check = {"images": 7, "agreement": 100.0, "max_difference": 0.0, "original": figures,
             "exported": figures}  # fmt: skip
    file = {"bytes": 5, "quantize": None, "check": check, "dataset": dataset}
    export = {
        "metadata": metadata(CARD, "uint8"),
        "files": {"student.onnx": file},
        "timing": None,
    }
    return markdown(export, CARD, data, result)


def test_the_size_is_width_by_height() -> None:
    assert "brought to 32×24 pixels (width × height)" in card({}, DATA)


def test_the_check_may_be_on_other_data() -> None:
    own = card({"name": "photos", "fingerprint": DATA.fingerprint}, DATA)
    assert "| 7 |" in own
    other = card({"name": "paintings", "fingerprint": "f" * 64}, DATA)
    assert "# tiny on photos" in other
    assert "photos, 100 training, 10 validation and 20 test images" in other
    assert "| 7 of paintings, other images |" in other
    sizeless = card({}, DatasetResult(name="photos", fingerprint=DATA.fingerprint))
    assert "- Data: photos (fingerprint `0123456789abcdef`)." in sizeless


def test_left_out_training_images_are_told() -> None:
    values = {"transfer": {"size": 60, "train_size": 100, "classes_left_out": ["b"]}}
    result = RunResult.from_dict(values)
    assert "learned from 60 images, none of them of `b`." in card({}, DATA, result)
    whole = RunResult.from_dict({"transfer": {"size": 100, "train_size": 100}})
    assert "learned from" not in card({}, DATA, whole)
