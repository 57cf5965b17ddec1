"""Writes `google_schema.json`: what Google's Terraform provider knows of the resources used here.

    npm pack @cdktf/provider-google@16.12.1 && tar xzf cdktf-provider-google-*.tgz
    python tests/support/google_schema.py package/lib

Terraform itself cannot ask for the schema without the provider's binary, which no package registry holds; the bindings
in that npm package were generated from the schema of provider 6.50.0. Only names, types and whether they are required
are kept.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

OUT = Path(__file__).with_name("google_schema.json")
DEPLOY = ROOT / "deploy" / "gcp"
SIMPLE = {"string": "string", "number": "number", "boolean": "bool"}


def main() -> None:
    """Write the schema of every resource type in `deploy/gcp`."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(DEPLOY.glob("*.tf")))
    types = sorted(set(re.findall(r'^resource "(\w+)"', text, flags=re.MULTILINE)))
    schema = {name: _resource(Path(sys.argv[1]), name) for name in types}
    OUT.write_text(
        json.dumps({"provider": "6.50.0", "resources": schema}, separators=(",", ":")) + "\n", encoding="utf-8"
    )


def _resource(library: Path, name: str) -> dict[str, Any]:
    folder = library / name.removeprefix("google_").replace("_", "-")
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.js")))
    types = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.d.ts")))
    (entries,) = re.findall(r"synthesizeHclAttributes\(\) \{\n\s+const attrs = \{\n(.*?)\n\s+\};", code, re.DOTALL)
    (config,) = re.findall(r"interface (\w+Config) extends", types)
    block = _block(entries, config, code, types)
    (body,) = re.findall(r"export declare class \w+ extends cdktf\.TerraformResource \{(.*?)\n\}", types, re.DOTALL)
    for getter, type_name in re.findall(r"\n    get (\w+)\(\): ([^;]+);", body):
        attribute = re.sub(r"(?<!^)([A-Z])", lambda found: "_" + found[1].lower(), getter)
        if not attribute.endswith("_input") and attribute not in {**block["attributes"], **block["blocks"]}:
            known = {
                "string": "string",
                "number": "number",
                "cdktf.IResolvable": "bool",
                "string[]": ["list", "string"],
            }
            block["attributes"][attribute] = {"type": known.get(type_name, "dynamic"), "computed": True}
    return block


def _block(entries: str, interface: str, code: str, types: str) -> dict[str, Any]:
    found = re.search(rf"export interface {interface}\b[^{{]*\{{(.*?)\n\}}", types, re.DOTALL)
    assert found, interface
    members = dict(re.findall(r"\n    readonly (\w+)(\??):", found[1]))
    block: dict[str, Any] = {"attributes": {}, "blocks": {}}
    pattern = r'(\w+): \{\n\s+value: (.*?),\n\s+isBlock: (true|false),\n\s+type: "(\w+)",\n\s+storageClassType: "(\w+)"'
    for name, value, is_block, kind, storage in re.findall(pattern, entries):
        camel = re.sub(r"_(\w)", lambda letter: letter[1].upper(), name)
        required = members.get(camel, "?") == ""
        if is_block == "true":
            block["blocks"][name] = {
                "nesting": kind,
                "required": required,
                "block": _nested(value, storage, code, types),
            }
        else:
            block["attributes"][name] = {"type": _type(kind, storage), "required": required}
    return block


def _nested(value: str, storage: str, code: str, types: str) -> dict[str, Any]:
    found = re.search(r"(\w+)ToHclTerraform", value.replace("cdktf.listMapperHcl(", ""))
    assert found, value
    function = found[1]
    (entries,) = re.findall(
        rf"function {function}ToHclTerraform\(struct\) \{{.*?const attrs = \{{\n?(.*?)\n?    \}};", code, re.DOTALL
    )
    return _block(entries, function[0].upper() + function[1:], code, types)


def _type(kind: str, storage: str) -> Any:
    if kind == "simple":
        return SIMPLE.get(storage, "dynamic")
    element = SIMPLE.get(re.sub(r"(Map|List)$", "", storage))
    return [kind, element] if element else "dynamic"


if __name__ == "__main__":
    main()
