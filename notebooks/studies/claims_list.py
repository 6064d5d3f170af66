"""What the paper claims, where it contradicts itself, and which printed figures are slips - data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slip:
    """A printed figure that repeats another network's, or differs in a digit; `comparison` computes the evidence."""

    row: str
    variant: str
    cell: str
    because: str
    network: dict | None = None  # the network whose figure this is: what differs from the row's own; None: one digit


SLIPS = (
    Slip("emnist", "full", "params_m", "the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    Slip("emnist", "full", "macs_m", "the figure of 10 classes, EMNIST letters has 26", {"classes": 10}),
    Slip("emnist", "odn", "macs_m", "one digit differs"),
    Slip("svhn", "full", "macs_m", "the figure of 28x28x1 images, SVHN has 32x32x3", {"image_shape": (1, 28, 28)}),
)


@dataclass(frozen=True)
class Claim:
    """A statement of the text, and how it can be checked here."""

    key: str
    section: str
    statement: str
    check: str  # what is computed or measured for it


CLAIMS = (
    Claim("mnist_98_64", "Abstract", "ResNet-18 for MNIST is 98.64 % smaller", "sizes at depths 8 and 2"),
    Claim("svhn_96_44", "Abstract", "ResNet-34 for SVHN is 96.44 % smaller", "sizes at depths 16 and 5"),
    Claim(
        "over_95",
        "IV",
        "the size reduction exceeds 95 % for MNIST, EMNIST, Fashion-MNIST and SVHN",
        "sizes of the networks at the paper's depths",
    ),
    Claim(
        "within_1_75",
        "IV",
        "ODNs stay within 1.75 points of the full networks' accuracy",
        "test accuracies of both, from runs at full width on real images",
    ),
    Claim(
        "warmup_fluctuation",
        "III-B, Figure 3",
        "warm-up mitigates large fluctuations",
        "epoch-to-epoch change of validation accuracy and loss, and their jump at a new depth, paired over seeds",
    ),
    Claim(
        "warmup_convergence",
        "III-B, Figure 3",
        "warm-up speeds up convergence",
        "epochs until a validation accuracy is reached, paired over seeds",
    ),
    Claim(
        "depth_follows_complexity",
        "IV",
        "harder datasets get deeper networks",
        "depth found per dataset with one architecture and one protocol",
    ),
    Claim(
        "flops_mean_latency",
        "IV",
        "lower FLOPs result in faster inference on edge devices",
        "latency of full and optimally deep network, on a CPU, beside the ratio of their MACs",
    ),
    Claim(
        "byproducts",
        "IV",
        "the networks of all depths tried serve stricter budgets",
        "validation accuracy of every depth tried against its size",
    ),
    Claim(
        "other_families",
        "I",
        "the method applies to Wide ResNets and MobileNets",
        "a search with each family",
    ),
    Claim("compress_further", "I", "ODNs can be compressed further", "quantisation and pruning of an ODN"),
    Claim(
        "compression_cannot_reach",
        "II-B",
        "pruning and quantisation of the full network do not reach such a reduction",
        "quantisation and pruning of a full network beside the ODN",
    ),
    Claim(
        "depth_is_reusable",
        "I",
        "the depth found can be reused for datasets of similar complexity",
        "training at a depth found elsewhere beside a search",
    ),
    Claim(
        "expansion_matters",
        "III-C",
        "progressive depth expansion trains the network deployed (the paper shows no plain training of it)",
        "the same network trained plainly, for as many multiply-accumulates as the search took",
    ),
    Claim(
        "algorithm_stops",
        "Algorithm 1",
        "the search stops as soon as the target is met or the last depth is passed",
        "the stages that a run goes through, from its records",
    ),
)

# Where the paper contradicts itself or its released code: subject, one place, another.
CONTRADICTIONS = (
    ("Initial learning rate", "Section IV: 0.1", "released code: 0.01 (SVHN: 0.1)"),
    ("Learning-rate decay", "Section III-C: reduced by 60 % (x 0.4)", "Algorithm 1 line 28 and released code: x 0.6"),
    ("Warm-up", "Algorithm 1 lines 1-9: the full depth only", "Sections III and III-B: all depth levels"),
    (
        "When the rate decays",
        "Algorithm 1 line 27: at each improvement too",
        "Section III-C: 5 epochs without one",
    ),
    (
        "Restart of a depth",
        "Algorithm 1: best accuracy, counter, rate are kept",
        "Section III: training is restarted",
    ),
    ("Fine-tuning", "absent from Algorithm 1", "Section III-D: the final step"),
    ("Target never met", "Algorithm 1 returns D_f + 1", "Eq. 1: no such depth"),
    ("ODN accuracy on MNIST", "abstract and Table I: 99.31 %", "contributions: 99.39 %"),
    ("Best accuracy at a new depth", "released code: reset", "its stored logs: carried over (our `carry_best`)"),
    ("Full-depth baselines", "Table I lists them", "neither text nor released code says how they were trained"),
    ("Architectures", "Section I: ResNet-24", "Section IV: ResNet-18, -34, -50"),
)
