from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import prune

from sparsefx.passes.errors import MaskError
from sparsefx.training import MaskSet, MaskStructure
from sparsefx.training.weight_layout import WeightLayout

from .helpers import Plain, batch, seeded


def random_mask(*shape: int, density: float = 0.3, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.first(x)))
        return y


def test_it_is_a_mapping_in_order() -> None:
    masks = {"b.weight": random_mask(4, 3), "a.weight": random_mask(2, 5, 3, 3)}
    mask_set = MaskSet(masks)
    assert list(mask_set) == ["b.weight", "a.weight"]
    assert len(mask_set) == 2
    assert "a.weight" in mask_set and "c.weight" not in mask_set
    for name, mask in mask_set.items():
        assert mask.dtype == torch.bool
        assert torch.equal(mask, masks[name])
    assert mask_set.shape("a.weight") == (2, 5, 3, 3)
    with pytest.raises(KeyError):
        mask_set["c.weight"]


def test_what_it_hands_out_is_a_copy() -> None:
    mask_set = MaskSet({"w": torch.zeros(3, 3, dtype=torch.bool)})
    mask_set["w"].fill_(True)
    assert not mask_set["w"].any()


def test_density() -> None:
    mask_set = MaskSet({"a": torch.tensor([[1, 0], [0, 0]]), "b": torch.ones(2, 6)})
    assert mask_set.density("a") == 0.25
    assert mask_set.density() == 13 / 16
    assert MaskSet({}).density() == 1.0


def test_equality_compares_masks_only() -> None:
    mask = random_mask(4, 4)
    assert MaskSet({"w": mask}, method="RigL") == MaskSet({"w": mask.float()}, method="SET")
    assert MaskSet({"w": mask}).equals(MaskSet({"w": mask}))
    assert MaskSet({"w": mask}) != MaskSet({"w": ~mask})
    assert MaskSet({"w": mask}) != MaskSet({"v": mask})
    assert MaskSet({"w": mask}) != MaskSet({"w": mask.reshape(2, 8)})
    assert MaskSet({"w": mask}) != {"w": mask}


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_zeros_and_ones_of_any_type_are_masks(dtype: torch.dtype) -> None:
    mask = random_mask(5, 3)
    assert torch.equal(MaskSet({"w": mask.to(dtype)})["w"], mask)
    assert torch.equal(MaskSet({"w": nn.Parameter(mask.float())})["w"], mask)
    assert torch.equal(MaskSet({"w": mask.numpy()})["w"], mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[0, 2]], dtype=torch.uint8), r"the mask of w, uint8 of shape \(1, 2\), contains 2;"),
        (torch.tensor([[0.5, 1.0]]), r"the mask of w, float32 of shape \(1, 2\), contains 0\.5;.*`mask != 0`"),
        (torch.tensor([[float("nan"), 1.0]]), "contains nan"),
        (np.array([[-1, 1]]), "contains -1"),
        ([[0, 1]], "the mask of w is a list; expected a tensor"),
    ],
)
def test_other_values_are_refused(mask: object, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        MaskSet({"w": mask})


def test_settings_must_be_json() -> None:
    made = MaskSet({"w": random_mask(2, 2)}, settings={"betas": (1, 2)}, method="RigL", step=3)
    assert made.settings == {"betas": [1, 2]}
    assert set(made.versions) == {"sparsefx", "torch"}
    assert repr(made) == "MaskSet(1 parameters, density 0.5000, method RigL, step 3)"
    with pytest.raises(MaskError, match="settings of a mask set must be JSON"):
        MaskSet({}, settings={"optimizer": object()})
    with pytest.raises(MaskError, match="must be JSON"):
        MaskSet({}, settings={"alpha": float("nan")})


def test_structures_are_verified_when_given() -> None:
    fan_in = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]])
    masks = MaskSet({"w": fan_in}, structures={"w": MaskStructure("constant_fan_in", fan_in=2)})
    assert masks.structure("w") == MaskStructure("constant_fan_in", fan_in=2, ablated=(1,))
    with pytest.raises(MaskError, match=r"of w, shape \(3, 4\), is not constant_fan_in: .* 2 non-zeros, not 3"):
        MaskSet({"w": fan_in}, structures={"w": MaskStructure("constant_fan_in", fan_in=3)})
    with pytest.raises(MaskError, match=r"there is a structure for v, but no such parameter"):
        MaskSet({"w": fan_in}, structures={"v": MaskStructure("unstructured")})


def test_from_zeros_of_a_model() -> None:
    model = Plain()
    mask = random_mask(*model.conv2.weight.shape)
    with torch.no_grad():
        model.conv2.weight.mul_(mask)
        assert model.conv1.bias is not None
        model.conv1.bias.zero_()
    masks = MaskSet.from_zeros(model)
    assert list(masks) == ["conv2.weight"], "vectors, and weights without a zero, have no mask"
    assert torch.equal(masks["conv2.weight"], mask)
    assert MaskSet.from_zeros(model.state_dict()) == masks
    named = MaskSet.from_zeros(model, names=["fc.weight", "conv1.bias"])
    assert named["fc.weight"].all() and not named["conv1.bias"].any()


def test_from_zeros_of_a_transposed_convolution_knows_its_layout() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))
    weight = model[0].weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight[2:, 1] = 0  # output channel 4
    structure = MaskSet.from_zeros(model).structure("0.weight")
    assert structure == MaskStructure("channel", ablated=(4,), layout=WeightLayout(1, 2))


def test_from_zeros_explains_what_is_wrong() -> None:
    with pytest.raises(MaskError, match=r"there is no parameter conv2.wieght \(did you mean conv2.weight\?\)"):
        MaskSet.from_zeros(Plain(), names=["conv2.wieght"])
    with pytest.raises(MaskError, match="no tensors found; of a training checkpoint"):
        MaskSet.from_zeros({"model": {}, "epoch": 3})  # type: ignore[dict-item]


def test_from_zeros_lists_a_tied_weight_once() -> None:
    model = Tied()
    with torch.no_grad():
        model.first.weight[0, 0] = 0
    assert list(MaskSet.from_zeros(model)) == ["first.weight"]


def pruned_model() -> nn.Module:
    model = seeded(Plain)
    prune.random_unstructured(model.get_submodule("conv2"), "weight", 0.5)  # type: ignore[no-untyped-call]
    prune.ln_structured(model.get_submodule("fc"), "weight", 0.25, n=2, dim=1)  # type: ignore[no-untyped-call]
    return model


def test_from_pruning() -> None:
    model = pruned_model()
    masks = MaskSet.from_pruning(model)
    assert list(masks) == ["conv2.weight", "fc.weight"]
    assert torch.equal(masks["conv2.weight"], model.get_buffer("conv2.weight_mask") != 0)
    assert masks.structure("fc.weight").kind == "channel"
    assert MaskSet.from_zeros(model) == masks, "the zeros that the model computes with"
    with pytest.raises(MaskError, match=r"Plain has no masks of torch.nn.utils.prune.*MaskSet.from_zeros"):
        MaskSet.from_pruning(Plain())


def test_check_names_what_does_not_fit() -> None:
    model = Plain()
    good = MaskSet({"conv2.weight": torch.ones(16, 8, 3, 3)})
    good.check(model)
    good.check(model.state_dict())
    good.check({"conv2.weight": (16, 8, 3, 3)})
    misspelt = MaskSet({"conv2.weigth": torch.ones(2, 2), "x": torch.ones(2, 2)})
    with pytest.raises(MaskError, match=r"a mask for conv2.weigth, and 1 more, but .*did you mean conv2.weight\?"):
        misspelt.check(model)
    with pytest.raises(MaskError, match=r"mask of fc.weight has shape \(5, 8\), the parameter \(5, 16\)"):
        MaskSet({"fc.weight": torch.ones(5, 8)}).check(model)
    with pytest.raises(MaskError, match=r"shape \(2, 2\), the parameter \(2, 3\)"):
        MaskSet({"w": torch.ones(2, 2)}).check({"w": [2, 3]})


def test_apply_masks_in_place() -> None:
    model = seeded(Plain)
    mask = random_mask(16, 8, 3, 3)
    before = model.get_parameter("conv2.weight").detach().clone()
    with torch.no_grad():
        model.get_parameter("conv2.weight")[~mask] = torch.nan
    MaskSet({"conv2.weight": mask}).apply(model)
    assert torch.equal(model.get_parameter("conv2.weight"), before * mask), "a masked weight is zero whatever it was"


def test_apply_reaches_what_pruning_keeps() -> None:
    model = pruned_model()
    mask = random_mask(16, 8, 3, 3)
    MaskSet({"conv2.weight": mask}).apply(model)
    assert not model.get_parameter("conv2.weight_orig")[~mask].any()
    product = model.get_submodule("conv2").weight
    assert isinstance(product, Tensor) and not product[~mask].any()


def test_masked_state_computes_the_masked_model_and_leaves_the_model_alone() -> None:
    model = seeded(Plain).eval()
    masks = MaskSet({"conv2.weight": random_mask(16, 8, 3, 3), "fc.weight": random_mask(5, 16)})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = masks.masked_state(model)
    assert list(state) == ["conv2.weight", "fc.weight"]
    images, _ = batch(0)
    result = functional_call(model, state, (images,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    masks.apply(model)
    assert torch.equal(result, model(images))


def test_masked_state_of_a_pruned_model() -> None:
    model = pruned_model().eval()
    masks = MaskSet({"conv2.weight": random_mask(16, 8, 3, 3)})
    state = masks.masked_state(model)
    assert list(state) == ["conv2.weight_orig"]
    images, _ = batch(0)
    expected = functional_call(model, state, (images,))
    masks.apply(model)
    assert torch.equal(expected, model(images))


def test_tied_parameters_have_one_mask() -> None:
    model = Tied()
    mask = random_mask(6, 6)
    state = MaskSet({"second.weight": mask}).masked_state(model)
    assert list(state) == ["first.weight", "second.weight"]
    assert torch.equal(state["first.weight"], model.first.weight * mask)
    assert state["first.weight"] is state["second.weight"]
    with pytest.raises(MaskError, match=r"first.weight and second.weight are one tied parameter"):
        MaskSet({"first.weight": mask, "second.weight": ~mask}).check(model)
    MaskSet({"first.weight": mask, "second.weight": mask}).check(model)
