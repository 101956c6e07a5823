"""The phantom: reproducible, of the stated statistics, and by design not solved by one modality."""

import numpy as np
import pytest

from vesuvius.data.petct.layout import find_triples
from vesuvius.data.petct.phantom import PhantomSettings, draw_anatomy, draw_slice
from vesuvius.data.petct.phantom_files import write_phantom
from vesuvius.data.petct.png import read_png
from vesuvius.errors import ConfigError

SMALL = PhantomSettings(size=64, lesion_radius=(12, 26))


def draw(settings, patients=4, slices=10, seed=0):
    for patient in range(patients):
        anatomy = draw_anatomy(np.random.default_rng((seed, patient)))
        for number in range(slices):
            yield draw_slice(anatomy, np.random.default_rng((seed, patient, number)), settings)


def test_lesion_statistics_at_full_size():
    masks = [mask for _, _, mask in draw(PhantomSettings(), patients=3, slices=6)]
    shares = np.array([(mask > 0).mean() for mask in masks])
    assert 0.5 <= (shares > 0).mean() <= 0.95  # 80 % of the slices
    assert 0.0003 < shares[shares > 0].mean() < 0.017
    assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)


def test_lesions_are_bright_on_both_but_nodules_only_on_ct():
    settings = PhantomSettings(size=128, pet_shift=0, lesion_radius=(14, 26), max_nodules=2)
    ct_lesion, pet_lesion = [], []
    for ct, pet, mask in draw(settings):
        if mask.any():
            ct_lesion.append(ct[mask > 0].mean())
            pet_lesion.append(pet[mask > 0].mean() - np.median(pet[64:100, 40:90]))
    assert np.mean(ct_lesion) > 170  # soft tissue is (45 + 1000) / 1400 * 255 = 190
    assert np.mean(pet_lesion) > 30


def test_neither_modality_has_the_answer_by_a_threshold():
    """Best Dice of any grey value threshold inside the lungs: poor for each modality."""
    triples = list(draw(PhantomSettings(size=128, lesion_radius=(12, 26))))
    ct, pet, mask = (np.stack([t[i] for t in triples]) for i in range(3))
    truth = mask > 0
    for image, limit in ((ct, 0.2), (pet, 0.8)):
        best = 0.0
        for value in range(20, 250, 10):
            found = image > value
            best = max(best, 2 * (found & truth).sum() / (found.sum() + truth.sum()))
        assert best < limit


def test_files_are_a_function_of_the_seed_and_can_be_extended(tmp_path):
    arguments = {"slices_per_patient": 2, "settings": SMALL, "seed": 3}
    assert write_phantom(tmp_path / "a", num_patients=3, **arguments) == 6
    assert write_phantom(tmp_path / "b", num_patients=2, **arguments) == 4
    assert write_phantom(tmp_path / "b", num_patients=3, **arguments) == 2
    a, b = (find_triples(tmp_path / x)["all"] for x in "ab")
    assert [t.name for t in a] == [t.name for t in b]
    for one, other in zip(a, b, strict=True):
        for part in ("ct", "pet", "mask"):
            assert np.array_equal(read_png(getattr(one, part)), read_png(getattr(other, part)))
    with pytest.raises(ConfigError, match="holds a phantom with seed=3, asked for is 4"):
        write_phantom(tmp_path / "a", num_patients=3, **{**arguments, "seed": 4})


def test_slices_of_a_patient_share_its_anatomy():
    bodies = []
    for patient in range(2):
        anatomy = draw_anatomy(np.random.default_rng(patient))
        for number in range(2):
            ct = draw_slice(anatomy, np.random.default_rng((patient, number)), SMALL)[0]
            bodies.append(ct > 90)  # soft tissue: -90 HU and more
    same = [(bodies[i] ^ bodies[i + 1]).mean() for i in (0, 2)]
    other = (bodies[0] ^ bodies[2]).mean()
    assert max(same) < other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 8}, "size=8"),
        ({"lesion_radius": (9, 3)}, r"lesion_radius=\(9, 3\)"),
        ({"lesion_share": 1.2}, r"lesion_share=1\.2"),
    ],
)
def test_settings_out_of_range(arguments, words):
    with pytest.raises(ConfigError, match=words):
        PhantomSettings(**arguments)
