"""What a parameter's text may say: a precision, a training, a stopping rule, or the path of a file."""

LARGEST_KEY = 2**32 - 1  # of a seed and of an image's id: noise is keyed by 32 bits of each

AUTO = "auto"  # of a batch size: the fastest, found out by lib.sampling.pace

# A training in words, which lib.methods reads: "90 epochs of 256, adam 1e-3", perhaps with ", sgd 1e-3 after 50".
RATE = r"(?![0.]+(?:e|,| |$))\d+(?:\.\d+)?(?:e-\d+)?"  # not 0
TRAINING = {
    "pattern": rf"(?P<epochs>[1-9]\d*) epochs of (?P<batch_size>[1-9]\d*), (?P<optimizer>adam|sgd) (?P<lr>{RATE})"
    rf"(?:, sgd (?P<sgd_lr>{RATE}) after (?P<sgd_epoch>[1-9]\d*))?",
    "example": "90 epochs of 256, adam 1e-3 (or: 90 epochs of 256, adam 1e-3, sgd 1e-4 after 50)",
}
# How f is computed in words, which lib.models.compute reads and explains.
COMPUTE = {
    "pattern": r"(float32|tf32|bfloat16|float16)(, channels-last)?(, folded)?(, compiled|, cuda-graphs)?",
    "example": "float32, tf32, bfloat16 or float16; then, in this order, channels-last, folded, compiled|cuda-graphs",
}
# When an image has had enough samples, in words, which lib.methods turns into a rule of lib.bounds.
STOP = {
    "pattern": r"after n|at radii(?P<radii>(?: \d+(?:\.\d+)?)+)|within (?P<tolerance>(?![0.]+$)\d+(?:\.\d+)?)",
    "example": "after n, or at radii 0 0.25 0.5, or within 0.05",
}
# A file's path that may depend on the noise level, which lib.config.file_at fills in; empty: no file.
FILE = {
    "pattern": r"(?:[^{}]|\{sigma(?::\.\df)?\})*",
    "example": "a path, in which {sigma} becomes the noise level, such as 0.5, and {sigma:.2f} 0.50",
    "files": True,
}
# A training method in words, which lib.methods.training reads: a name and numbers of its objective.
METHOD = {
    "pattern": r"(?P<name>[a-z]+(?:-[a-z]+)*)(?P<fields>(?: [a-z_]+ [\w.+-]+)*)",
    "example": "a name, and numbers of the method where they differ from the paper's: smoothadv epsilon 0.5 steps 2",
}
