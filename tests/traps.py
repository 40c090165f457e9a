"""Files of a model that lead to code, to other repositories and to other files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

from hub_server import HubServer, Repository

AUTO: dict[str, Any] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
# Entries of a configuration that lead elsewhere.
LEADS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": AUTO},
    "auto_map of another repository": {"auto_map": {name: "evil/code--evil.Evil" for name in AUTO}},
    "auto_map in a part": {"text_config": {"auto_map": AUTO}, "vision_config": {"auto_map": AUTO, "model_type": "llama"}},
    "attention kernel": {"attn_implementation": "evil/kernel"},
    "private attention kernel": {"_attn_implementation": "evil/kernel:f", "_attn_implementation_internal": "evil/kernel"},
    "attention kernel of parts": {"attn_implementation": {"": "evil/kernel", "text_config": "evil/kernel@main"}},
    "attention by another name": {"attribute_map": {"hidden_act": "_attn_implementation_internal"}, "__dict__": {"x": 1}},
    "flash attention": {"attn_implementation": "flash_attention_3", "experts_implementation": "evil/kernel"},
    "kernels": {"use_kernels": True, "kernel_config": {"kernel_mapping": {"RMSNorm": "evil/kernel:RMSNorm"}}},
    "fusion": {"fusion_config": {"x": 1}, "distributed_config": {"tp_plan": "auto"}},
    "name": {"_name_or_path": "evil/other", "name_or_path": "evil/other", "base_model_name_or_path": "evil/other"},
    "files": {"configuration_files": ["config.9.json"], "transformers_weights": "../evil.safetensors"},
    "generation": {"custom_generate": "evil/generate", "custom_pipelines": {"x": {"impl": "evil.Evil", "pt": ["AutoModel"]}}},
    "vision backbone": {"backbone": "evil/other", "use_timm_backbone": True, "use_pretrained_backbone": True},
    "methods": {"to_dict": 1, "get_text_config": 1, "save_pretrained": 1, "sub_configs": {"a": 1}, "is_heterogeneous": True},
    "labels": {"num_labels": 10**9},
    "types": {"dtype": "load", "torch_dtype": "load"},
    "outputs": {"return_dict": False, "output_hidden_states": True, "output_attentions": True},
    "tokenizer class": {"tokenizer_class": "EvilTokenizer", "processor_class": "Evil", "tokenizer_file": "/etc/passwd"},
}


class Trap:
    """What would run if it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def put_traps(folder: Path, tmp_path: Path) -> None:
    """Files beside a model that name code and other repositories."""
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nEvil = dict\n")
    shutil.copytree(folder, folder / "custom_generate", ignore=lambda *a: [n for n in a[1] if n != "evil.py"])
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    adapter = {"base_model_name_or_path": "evil/base", "peft_type": "LORA", "auto_mapping": {"base_model_class": "Evil"}}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "generation_config.json").write_text(json.dumps({"custom_generate": "evil/generate"}))
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        (folder / name).write_text(json.dumps({"auto_map": AUTO, "processor_class": "Evil", "audio_tokenizer": "evil/other"}))
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    (folder / "requirements.txt").write_text("evil\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": AUTO, "tokenizer_class": "Evil", "tokenizer_file": "/etc/passwd", "name_or_path": "evil/other"})
    )
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))


def publish(hub: HubServer, name: str, folder: Path, commit: str) -> None:
    """Put the files of a folder into a repository of the server."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    hub.repositories[name] = Repository(False, [(commit, files)])
