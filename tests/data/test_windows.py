"""Frames with their neighbours."""

import pickle

import torch

from kdrun.data.speech import WindowedFrames


def test_each_frame_with_its_neighbours_and_none_of_another_recording() -> None:
    first, second = torch.arange(3.0)[:, None], 10 + torch.arange(2.0)[:, None]
    images = WindowedFrames([first, second], before=2, after=1)
    assert images.shape == (5, 1, 4, 1)
    found = images.gather(torch.arange(5)).squeeze().tolist()
    assert found == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 2], [10, 10, 10, 11], [10, 10, 11, 11]]
    assert torch.equal(images.gather(torch.tensor([4, 1])).squeeze(), torch.tensor(found)[[4, 1]])


def test_without_neighbours_each_frame_is_itself() -> None:
    frames = torch.randn(4, 3)
    images = WindowedFrames([frames], 0, 0)
    assert torch.equal(images.gather(torch.arange(4)).squeeze(), frames)


def test_it_can_be_sent_to_a_worker() -> None:
    images = WindowedFrames([torch.randn(4, 3)], 1, 1)
    again = pickle.loads(pickle.dumps(images))
    assert torch.equal(again.gather(torch.arange(4)), images.gather(torch.arange(4)))
