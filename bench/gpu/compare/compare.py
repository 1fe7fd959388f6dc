"""Compares builds of upgc with transformers' Phi3ForCausalLM on the same GPU, at the width of Phi-4.

    python3 bench/gpu/compare/compare.py [--json FILE] [--layers 4] [--hidden 5120 ...] [--device cuda]

Makes a checkpoint of random weights, builds it with 16-bit and with 4-bit weights, and has upgc score a text and go on
greedily from it. The reference computes in float32, TF32 off, with the very values of the build: the checkpoint's, or
those that the packed planes of weights.bin stand for (docs/weights.md), which this file decodes by itself. Exits with 1
when a build is further from its reference than its limit.

Needs dist/, the addon and build/bench, as run.sh makes them; torch, transformers, safetensors and numpy, which nothing
else of upgc uses.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import Phi3Config, Phi3ForCausalLM

ROOT = Path(__file__).resolve().parents[3]
# Greatest distance of a logit from its reference, in units of the greatest logit.
LIMITS = {"stored": 2e-3, "q4g32": 5e-3}
# More than the 64 tokens of a chunk, so that the second one begins in the middle of the text.
TEXT, FOLLOWING = 80, 16
SEED = 1

started = time.monotonic()


def say(line):
    print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="Compares builds of upgc with transformers' Phi3ForCausalLM.")
    sizes = {"layers": 4, "hidden": 5120, "intermediate": 17920, "heads": 40, "kv_heads": 10, "vocabulary": 100352}
    for name, size in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="of upgc and of torch")
    parser.add_argument("--target", help="what upgc compiles for (default: the device)")
    parser.add_argument("--compile", default="", help="more options for upgc compile, like '--kv f16'")
    parser.add_argument("--folder", help="where temporary files go (about 10 GB at full width)")
    parser.add_argument("--json", help="a file for the results")
    return parser.parse_args()


def config_of(args):
    return {
        "model_type": "phi3",
        "vocab_size": args.vocabulary,
        "hidden_size": args.hidden,
        "intermediate_size": args.intermediate,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv_heads,
        "max_position_embeddings": 16384,
        "original_max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 250000.0, "rope_type": "default", "partial_rotary_factor": 1.0},
        "hidden_act": "silu",
        "sliding_window": None,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def random_weights(args):
    """bf16 tensors by their names in a checkpoint: matrices of the deviation that Phi-3 starts with, gains around 1."""
    hidden, head = args.hidden, args.hidden // args.heads
    generator = torch.Generator(args.device).manual_seed(SEED)

    def normal(*shape, mean=0.0, deviation=0.02):
        values = torch.empty(shape, device=args.device).normal_(mean, deviation, generator=generator)
        return values.to(torch.bfloat16)

    def gain():
        return normal(hidden, mean=1.0, deviation=0.1)

    weights = {"model.embed_tokens.weight": normal(args.vocabulary, hidden)}
    for layer in range(args.layers):
        weights |= {
            f"model.layers.{layer}.{name}.weight": tensor
            for name, tensor in {
                "input_layernorm": gain(),
                "self_attn.qkv_proj": normal((args.heads + 2 * args.kv_heads) * head, hidden),
                "self_attn.o_proj": normal(hidden, hidden),
                "post_attention_layernorm": gain(),
                "mlp.gate_up_proj": normal(2 * args.intermediate, hidden),
                "mlp.down_proj": normal(hidden, args.intermediate),
            }.items()
        }
    return weights | {"model.norm.weight": gain(), "lm_head.weight": normal(args.vocabulary, hidden)}


def values_of(build, device):
    """What the tensors of a build stand for, by name."""
    plan = json.loads((build / "plan.json").read_text())
    stored = np.memmap(build / "weights.bin", np.uint8, "r")

    def read(offset, size, dtype):
        return torch.from_numpy(np.array(stored[offset : offset + size])).to(device).view(dtype)

    def value(tensor):
        offset, size, shape = tensor["offset"], tensor["bytes"], tensor["shape"]
        plain = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
        if tensor["dtype"] in plain:
            return read(offset, size, plain[tensor["dtype"]]).view(shape)
        if tensor["dtype"] != "q4g32":
            raise SystemExit(f"{tensor['name']} is in {tensor['dtype']}, which this script does not decode")
        # Rows are groups of 32. Byte j of 16 has element j in its low and j + 16 in its high half; after all of them,
        # maybe with a gap, come the f16 scales.
        groups = math.prod(shape) // 32
        pairs = read(offset, groups * 16, torch.uint8).view(groups, 16)
        scales = read(offset + size - groups * 2, groups * 2, torch.float16).view(groups, 1)
        integers = torch.cat([pairs & 15, pairs >> 4], dim=1).float() - 8
        # Exact: 11 bits times 4.
        return (integers * scales.float()).view(shape)

    return {tensor["name"]: value(tensor) for tensor in plan["weights"]}


def model_of(config, dtype, device):
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Phi3ForCausalLM(Phi3Config(**config, attn_implementation="eager")).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def load(model, values):
    names = model.state_dict().keys()
    model.load_state_dict({name: values[name] for name in names})


def logits_of(model, tokens, device):
    with torch.inference_mode():
        return model(torch.tensor([tokens], device=device), use_cache=False).logits[0].float()


def upgc(*command):
    done = subprocess.run(["node", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def main():
    args = arguments()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device, config = args.device, config_of(args)
    text = [(i * 7919 + 13) % args.vocabulary for i in range(TEXT)]
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    say(f"transformers {transformers.__version__}, torch {torch.__version__}, {name}")
    results, failed = [], False
    with tempfile.TemporaryDirectory(prefix="upgc-compare-", dir=args.folder) as temporary:
        checkpoint, build, file = (Path(temporary, part) for part in ("checkpoint", "build", "logits"))
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text(json.dumps(config))
        weights = random_weights(args)
        save_file({name: tensor.cpu() for name, tensor in weights.items()}, str(checkpoint / "model.safetensors"))
        say(f"wrote a checkpoint of {sum(tensor.numel() for tensor in weights.values()):,} parameters")
        model = model_of(config, torch.float32, device)
        originals = None
        for quantize, limit in LIMITS.items():
            upgc(
                *("dist/cli/main.js", "compile", "models/phi4.graph.ts", "--weights", checkpoint, "--out", build),
                *("--quantize", quantize, "--target", args.target or device, "--context", 256, *args.compile.split()),
            )
            say(f"{quantize}: compiled")
            score = ("build/bench/gpu/compare/score.js", build, "--device", device, "--logits", file)
            ids = json.loads(upgc(*score, "--tokens", ",".join(map(str, text)), "--follow", FOLLOWING))
            found = torch.from_numpy(np.fromfile(file, np.float32)).view(TEXT, args.vocabulary).to(device)
            say(f"{quantize}: scored")

            load(model, weights if quantize == "stored" else values_of(build, device))
            shutil.rmtree(build)
            expected = logits_of(model, text + ids, device)
            largest = expected.abs().max().item()
            error = (found - expected[:TEXT]).abs().max().item() / largest
            # A decode step may take another id than the likeliest only where both are as likely within the limit.
            rows = expected[TEXT - 1 : -1]
            chosen = rows.gather(1, torch.tensor(ids, device=device)[:, None])[:, 0]
            behind = (rows.max(dim=1).values - chosen).max().item() / largest
            greedy = int((rows.argmax(dim=1).cpu() == torch.tensor(ids)).sum())
            # Not (error > limit): that lets NaN pass.
            good = error <= limit and behind <= 2 * limit and len(ids) == FOLLOWING
            result = {"quantize": quantize, "error": error, "limit": limit, "largest": largest, "behind": behind}
            result |= {"greedy": greedy, "ids": len(ids), "passed": good}
            if originals is None:
                originals = expected[:TEXT].clone()
            else:
                # What the comparison would see if it took the wrong weights.
                result["quantisation"] = (expected[:TEXT] - originals).abs().max().item() / originals.abs().max().item()
            results.append(result)
            failed = failed or not good
            say(
                f"{quantize}: {'passed' if good else 'FAILED'}: {error:.2e} of the greatest logit, {largest:.3f} "
                f"(limit {limit:.0e}); {greedy} of {len(ids)} ids greedy, the others {behind:.2e} behind"
            )
        del model
        model = model_of(config, torch.bfloat16, device)
        load(model, weights)
        bf16 = (logits_of(model, text, device) - originals).abs().max().item() / originals.abs().max().item()
        say(f"for scale: transformers in bf16 {bf16:.2e}; q4g32 against the original weights "
            f"{results[-1]['quantisation']:.2e}")
    if args.json:
        sizes = {key: config[key] for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")}
        versions = {"transformers": transformers.__version__, "torch": torch.__version__, "device": name}
        summary = {**versions, **sizes, "tokens": TEXT, "compile": args.compile, "builds": results, "bf16": bf16}
        Path(args.json).write_text(json.dumps(summary, indent=1) + "\n")
    sys.exit(1 if failed else 0)


main()
