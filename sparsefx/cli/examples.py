"""Runnable examples, which --help of every command ends with."""

from __future__ import annotations

EXAMPLES = {
    "main": """examples:
  sparsefx quickstart
  sparsefx compile mymodels:resnet50 --masks masks.safetensors --input 1x3x224x224 -o resnet50.sfx
  sparsefx bench dense.sfx resnet50.sfx --threads 2
  sparsefx inspect resnet50.sfx""",
    "quickstart": """examples:
  sparsefx quickstart
  sparsefx quickstart --method chase -o half-the-channels""",
    "train": """examples:
  sparsefx train -o run                                          (digits, SRigL at 90%)
  sparsefx train --method Chase --set prune_skip=true --sparsity 0.8 --compile -o run
  sparsefx train --preset chase-cifar100-vgg19 --folder data/cifar100 -o run
  sparsefx train -o run --resume                                 (after an interruption)
  sparsefx train --list-presets""",
    "compile": """examples:
  sparsefx compile mymodels:resnet50 --weights trained.pth --masks masks.safetensors --input 1x3x224x224 -o resnet50.sfx
  sparsefx compile torchvision.models:resnet18 --input 1x3x224x224 -o resnet18.sfx   (zeros in the weights are the mask)
  sparsefx compile exported.pt2 --input 1x3x224x224 -o exported.sfx --json
  sparsefx compile mymodels:resnet50 --input 1x3x224x224 --target tensorrt-rtx:sm89 --precision fp16 -o rtx.sfx""",
    "slim": """examples:
  sparsefx slim mymodels:resnet50 --weights trained.pth --masks masks.safetensors --input 1x3x224x224 -o slim
  sparsefx slim torchvision.models:resnet18 --input 1x3x224x224 -o slim   (zeros in the weights are the mask)""",
    "verify": """example:
  sparsefx verify resnet50.sfx mymodels:resnet50 --weights trained.pth --masks masks.safetensors --input 1x3x224x224""",
    "bench": """examples:
  sparsefx bench dense.sfx slim.sfx --sizes batch=8 --threads 2 --seconds 10
  sparsefx bench slim.sfx --json""",
    "report": """examples:
  sparsefx report resnet50.sfx -o report.html
  sparsefx report resnet50.sfx --dense dense.sfx --threads 2 -o report.html       (times both, layer by layer)
  sparsefx report resnet50.sfx --latency-table resnet50.latency -o report.html    (with staircases)
  sparsefx report run/model.sfx --training run -o report.html --card README.md""",
    "inspect": """examples:
  sparsefx inspect resnet50.sfx
  sparsefx inspect masks.safetensors --json""",
    "profile": """examples:
  sparsefx profile torchvision.models:resnet50 --input 1x3x224x224 -o resnet50.latency --threads 2
  sparsefx profile torchvision.models:resnet50 --input 1x3x224x224 -o resnet50.latency    (goes on after a kill)
  sparsefx profile mymodels:net --input 1x3x224x224 -o part1.latency --shard 1/2
  sparsefx table part1.latency part2.latency --merge all.latency""",
    "table": """examples:
  sparsefx table resnet50.latency                                (what is in it)
  sparsefx table resnet50.latency --plot layer2.0.conv2 -o staircase.png
  sparsefx table before.latency after.latency --diff
  sparsefx table part1.latency part2.latency --merge all.latency""",
    "serve-export": """examples:
  sparsefx serve-export resnet50.sfx vit.sfx -o models           (two models; names are those of the folders)
  sparsefx serve-export resnet50.sfx -o models --max-batch-size 16 --preferred-batch-sizes 8,16 --max-queue-delay 500
  sparsefx serve-export sm80.sfx sm90.sfx --name resnet50 -o models    (TensorRT engines for different GPUs)
  sparsefx serve-export resnet50.sfx -o models --mounted-at /models --kernels lib/libsparsefx.so --threads 4
  tritonserver --model-repository models""",
    "completion": """examples:
  eval "$(sparsefx completion bash)"                             (this shell; or the same line in ~/.bashrc)
  sparsefx completion zsh > ~/.zfunc/_sparsefx                   (a folder of fpath, before compinit)
  sparsefx completion fish > ~/.config/fish/completions/sparsefx.fish""",
    "kernels": """examples:
  sparsefx kernels build                                         (into the cache, as at first use)
  sparsefx kernels build -o lib                                  (for a container without a compiler)
  sparsefx kernels build --march x86-64-v4 -o lib                (all of it for one kind of processor)""",
}
