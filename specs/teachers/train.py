"""Trains the teachers of this folder on scikit-learn's bundled digits, 1,797 images of 8 x 8.

``python train.py`` writes one safetensors file per network and ``accuracy.json`` beside this
script, in about a minute on two cores. Seeds and split are fixed: another machine comes to about
the same accuracy, though not to the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).parent
EPOCHS = 40
BATCH = 64
LEARNING_RATE = 3e-3
SEED = 0

# mean and standard deviation of the pixels after division by 16, their largest value
MEAN, DEVIATION = 0.305, 0.376


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which projects where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Resnet(nn.Module):
    """Three stages of two basic blocks behind a 3 x 3 stem, named as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 16, 1))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 1, 8, 8) to logits (N, 10)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class BasicConv2d(nn.Module):
    """Convolution, BatchNorm and relu; the map keeps its size."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H, W)."""
        return functional.relu(self.bn(self.conv(x)))


class InceptionBlock(nn.Module):
    """GoogLeNet's four branches, concatenated; the third has 3 x 3 kernels, as in torchvision."""

    def __init__(
        self, inputs: int, one: int, three: tuple[int, int], double: tuple[int, int], pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(inputs, one, 1)
        self.branch2 = nn.Sequential(BasicConv2d(inputs, three[0], 1), BasicConv2d(*three, 3))
        self.branch3 = nn.Sequential(BasicConv2d(inputs, double[0], 1), BasicConv2d(*double, 3))
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.branch4 = nn.Sequential(pool, BasicConv2d(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, sum of the branches' widths, H, W)."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], dim=1)


class Inception(nn.Module):
    """Three Inception blocks behind a 3 x 3 stem, named as in torchvision's GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = BasicConv2d(1, 16, 3)
        self.inception3a = InceptionBlock(16, 8, (8, 16), (4, 8), 8)
        self.inception3b = InceptionBlock(40, 16, (16, 24), (4, 8), 8)
        self.maxpool3 = nn.MaxPool2d(2, stride=2)
        self.inception4a = InceptionBlock(56, 24, (24, 32), (8, 16), 16)
        self.fc = nn.Linear(88, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 1, 8, 8) to logits (N, 10)."""
        x = self.inception3b(self.inception3a(self.conv1(x)))
        x = self.inception4a(self.maxpool3(x))
        return self.fc(x.mean((2, 3)))


class Mlp(nn.Sequential):
    """Two hidden layers; the keys are 0, 2 and 4."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 1, 8, 8), or their pixels (N, 64), to logits (N, 10)."""
        return super().forward(x.flatten(1))


class Convnet(nn.Module):
    """Conv, pool, conv, pool, conv, flatten, dense, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 24, 3, padding=1)
        self.conv3 = nn.Conv2d(24, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 2 * 2, 48)
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 1, 8, 8) to logits (N, 10)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.conv3(x))
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


TEACHERS: dict[str, Callable[[], nn.Module]] = {
    "resnet": Resnet,
    "inception": Inception,
    "mlp": Mlp,
    "convnet": Convnet,
}


def digits(*, test: bool) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8), standardised, and their labels (N,); every fourth is for the test."""
    pixels, labels = load_digits(return_X_y=True)
    chosen = torch.arange(len(labels)) % 4 == 3
    images = (torch.from_numpy(pixels).float() / 16 - MEAN) / DEVIATION
    chosen = chosen if test else ~chosen
    return images.view(-1, 1, 8, 8)[chosen], torch.from_numpy(labels)[chosen]


def accuracy(network: nn.Module) -> float:
    """The share of the test images that the network, in eval mode, names rightly."""
    images, labels = digits(test=True)
    with torch.no_grad():
        guesses = network.eval()(images).argmax(1)
    return (guesses == labels).double().mean().item()


def train(build: Callable[[], nn.Module]) -> nn.Module:
    """A network trained by AdamW, its learning rate falling from LEARNING_RATE to 0."""
    torch.manual_seed(SEED)
    network = build().train()
    images, labels = digits(test=False)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.01)
    batches = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels))[: batches * BATCH].split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network


def main() -> None:
    """Trains every teacher and writes its file; then all accuracies."""
    accuracies = {}
    for name, build in TEACHERS.items():
        network = train(build)
        accuracies[name] = round(accuracy(network), 4)
        save_file(network.state_dict(), FOLDER / f"{name}.safetensors")
        print(f"{name}: {accuracies[name]:.1%} of the test images")
    (FOLDER / "accuracy.json").write_text(json.dumps(accuracies, indent=2) + "\n")


if __name__ == "__main__":
    main()
