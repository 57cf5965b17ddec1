import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model import bundle as bundles
from pneumo.serving.model import graph_check, predictor
from pneumo.serving.model.bundle import Bundle, BundleError, compute_digest
from pneumo.serving.model.graph_check import MESSAGES, find_objection
from pneumo.serving.model.registry import resolve
from tests.support.bundles import make_info, make_network

SECRET = b"TOKEN=0123456789"
PLAIN_TENSOR = numpy_helper.from_array(np.zeros(16, np.uint8), "secret")


def external_tensor(location: str = ".env") -> TensorProto:
    tensor = TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[16], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def tensor_with_a_place_only() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(16, np.uint8), "secret")
    tensor.external_data.add(key="location", value=".env")
    return tensor


def tensor_with_the_flag_only() -> TensorProto:
    return TensorProto(name="secret", data_type=TensorProto.UINT8, dims=[16], data_location=TensorProto.EXTERNAL)


def sparse(tensor: TensorProto, *, as_indices: bool = False) -> SparseTensorProto:
    return SparseTensorProto(
        values=PLAIN_TENSOR if as_indices else tensor, indices=tensor if as_indices else PLAIN_TENSOR, dims=[16]
    )


def constant(**attributes: object) -> NodeProto:
    node = NodeProto(op_type="Constant", output=["secret"])
    for name, value in attributes.items():
        kind = {"t": AttributeProto.TENSOR, "sparse_tensor": AttributeProto.SPARSE_TENSOR, "g": AttributeProto.GRAPH}
        attribute = node.attribute.add(name="value", type=kind.get(name, AttributeProto.TENSORS))
        field = getattr(attribute, name)
        field.extend(value) if isinstance(value, list) else field.CopyFrom(value)
    return node


def graph_of(*nodes: NodeProto, tensor: TensorProto | None = None) -> onnx.GraphProto:
    return helper.make_graph(nodes, "inner", [], [], [tensor] if tensor else [])


def network() -> ModelProto:
    return onnx.load_from_string(make_network(1, 2, 0))


def with_initializer(tensor: TensorProto) -> ModelProto:
    model = network()
    model.graph.initializer.append(tensor)
    return model


def with_nodes(*nodes: NodeProto) -> ModelProto:
    model = network()
    model.graph.node.extend(nodes)
    return model


def with_sparse(tensor: SparseTensorProto) -> ModelProto:
    model = network()
    model.graph.sparse_initializer.append(tensor)
    return model


def with_function(*nodes: NodeProto, domain: str = "", default: TensorProto | None = None) -> ModelProto:
    model = network()
    function = model.functions.add(name="Twice", domain=domain, output=["y"], node=nodes)
    if default:
        function.attribute_proto.add(name="value", type=AttributeProto.TENSOR, t=default)
    return model


def with_training(tensor: TensorProto, field: str) -> ModelProto:
    model = network()
    getattr(model.training_info.add(), field).CopyFrom(graph_of(tensor=tensor))
    return model


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": with_initializer,
    "sparse initializer": lambda tensor: with_sparse(sparse(tensor)),
    "indices of a sparse initializer": lambda tensor: with_sparse(sparse(tensor, as_indices=True)),
    "attribute": lambda tensor: with_nodes(constant(t=tensor)),
    "attribute of several tensors": lambda tensor: with_nodes(constant(tensors=[PLAIN_TENSOR, tensor])),
    "sparse attribute": lambda tensor: with_nodes(constant(sparse_tensor=sparse(tensor))),
    "sparse attributes": lambda tensor: with_nodes(constant(sparse_tensors=[sparse(tensor)])),
    "initializer of a subgraph": lambda tensor: with_nodes(constant(g=graph_of(tensor=tensor))),
    "attribute in a subgraph": lambda tensor: with_nodes(constant(g=graph_of(constant(t=tensor)))),
    "attribute of several subgraphs": lambda tensor: with_nodes(constant(graphs=[graph_of(tensor=tensor)])),
    "subgraph in a subgraph": lambda tensor: with_nodes(constant(g=graph_of(constant(g=graph_of(tensor=tensor))))),
    "function": lambda tensor: with_function(constant(t=tensor)),
    "default of a function's attribute": lambda tensor: with_function(default=tensor),
    "training": lambda tensor: with_training(tensor, "initialization"),
    "training algorithm": lambda tensor: with_training(tensor, "algorithm"),
}


@pytest.mark.parametrize("tensor", [external_tensor, tensor_with_a_place_only, tensor_with_the_flag_only])
@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_wherever_a_tensor_can_be(place: str, tensor: Callable[[], TensorProto]) -> None:
    assert find_objection(PLACES[place](PLAIN_TENSOR).SerializeToString()) is None
    assert "external data" in str(find_objection(PLACES[place](tensor()).SerializeToString()))


@pytest.mark.parametrize(
    "wrap",
    [
        with_nodes,
        lambda node: with_nodes(constant(g=graph_of(node))),
        lambda node: with_nodes(constant(g=graph_of(constant(graphs=[graph_of(node)])))),
        lambda node: with_function(node),
    ],
)
@pytest.mark.parametrize(
    ("operator", "domain", "objection"),
    [
        ("Relu", "", None),
        ("Relu", "ai.onnx", None),
        ("Gelu", "com.microsoft", "an operator of the domain 'com.microsoft'"),
        ("TreeEnsemble", "ai.onnx.ml", "an operator of the domain 'ai.onnx.ml'"),
        ("Relu", "ai.onnx\0", r"an operator of the domain 'ai.onnx\x00'"),
        ("Read", "mine", "an operator of the domain 'mine'"),
        ("Read", "m\u00fcnchen" * 20, "an operator of the domain 'm"),
        ("EPContext", "", "an EPContext node"),
        ("EPContext", "com.microsoft", "an EPContext node"),
    ],
)
def test_operators_are_those_of_the_standard(
    wrap: Callable[[NodeProto], ModelProto], operator: str, domain: str, objection: str | None
) -> None:
    found = find_objection(wrap(NodeProto(op_type=operator, domain=domain, output=["y"])).SerializeToString())

    assert str(found).startswith(str(objection))
    assert found is None or (found.isascii() and found.isprintable() and len(found) < 300)


def test_functions_of_other_domains_are_refused() -> None:
    assert "domain 'mine'" in str(find_objection(with_function(domain="mine").SerializeToString()))
    assert find_objection(with_function(domain="ai.onnx").SerializeToString()) is None


def test_the_tables_hold_every_field_of_onnx_and_each_message_that_leads_to_a_tensor_or_operator() -> None:
    known = onnx.onnx_ml_pb2.DESCRIPTOR.message_types_by_name
    leading = {"TensorProto", "NodeProto"}
    while more := {
        name
        for name, message in known.items()
        if name not in leading
        and any(field.message_type and field.message_type.name in leading for field in message.fields)
    }:
        leading |= more
    assert leading | {"ModelProto"} == set(MESSAGES)
    for name in leading:
        nested = {
            field.number: field.message_type.name
            for field in known[name].fields
            if field.message_type and field.message_type.name in leading
        }
        assert MESSAGES[name] == ({field.number for field in known[name].fields} - nested.keys(), nested)


def field(number: int, content: bytes) -> bytes:
    length = len(content)
    assert number < 16
    return bytes([number << 3 | 2, length & 127 | 128, length >> 7]) + content


def test_tricks_of_the_wire_format_are_refused() -> None:
    good, bad = make_network(1, 2, 0), with_initializer(external_tensor()).SerializeToString()
    assert find_objection(good) is None
    assert "external data" in str(find_objection(good + bad))  # a parser merges both
    assert "external data" in str(find_objection(bad + good))
    inside = field(7, field(5, b"\x70\x01\x70\x00"))  # EXTERNAL, then DEFAULT: the last one counts
    assert onnx.load_from_string(inside).graph.initializer[0].data_location == TensorProto.DEFAULT
    assert "external data" in str(find_objection(inside))
    beyond = field(7, field(5, b"\x70\x81\x80\x80\x80\x10"))  # 2**32 + 1
    assert "external data" in str(find_objection(beyond))
    assert "unknown field 99" in str(find_objection(good + b"\x9a\x06\x01x"))
    assert "damaged" in str(find_objection(good + b"\x3b\x3c"))  # a group
    assert "damaged" in str(find_objection(good[:-1]))
    assert "damaged" in str(find_objection(b"\xff" * 20))
    assert "unknown field 0" in str(find_objection(good + b"\0\0"))


def test_a_graph_of_endless_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "MOST_FIELDS", 1000)
    assert find_objection(make_network(1, 2, 0)) is None
    assert find_objection(b"\x08\x01" * 1001) == "more than 1,000 fields"


def test_a_graph_in_the_format_of_onnx_runtime_is_refused(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(make_network(1, 2, 0), options, providers=["CPUExecutionProvider"])
    content = (tmp_path / "model.ort").read_bytes()

    assert onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).get_outputs()
    assert find_objection(content) == "a graph in ONNX Runtime's own format"


@given(st.data())
def test_a_graph_that_passes_names_no_file_whatever_its_bytes_are(data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(sorted(PLACES)))
    content = bytearray(
        PLACES[place](data.draw(st.sampled_from([external_tensor(), PLAIN_TENSOR]))).SerializeToString()
    )
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if find_objection(bytes(content)) is None:
        try:
            model = onnx.load_from_string(bytes(content))
        except Exception:  # protobuf refuses it as well
            return
        text = str(model)
        assert "external_data" not in text
        assert "data_location: EXTERNAL" not in text
        assert set(re.findall(r'^ +domain: "(.*)"$', text, flags=re.MULTILINE)) <= {"", "ai.onnx"}


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing(content: bytes) -> None:
    assert find_objection(content) is None or isinstance(find_objection(content), str)


def leaking_network(location: str = ".env") -> bytes:
    """A network with one more output: the content of a file."""
    model = with_initializer(external_tensor(location))
    model.graph.node.append(helper.make_node("Cast", ["secret"], ["leak"], to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("leak", TensorProto.FLOAT, [16]))
    return model.SerializeToString()


@pytest.fixture
def hostile(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A sealed bundle whose graph reads the `.env` in the working directory."""
    (tmp_path / ".env").write_bytes(SECRET)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(leaking_network())
    (folder / "embedding_space.npz").write_bytes(bundle.read("embedding_space.npz"))
    bundles.seal_bundle(folder, make_info(classes=bundle.info.classes))
    return Bundle.open(folder, verify=False)


def leak(session: onnxruntime.InferenceSession) -> bytes:
    (values,) = session.run(["leak"], {"image": np.zeros((1, 1, 28, 28), np.float32)})
    return values.astype(np.uint8).tobytes()


def test_a_sealed_bundle_that_would_read_a_file_is_refused(hostile: Bundle) -> None:
    content = hostile.read("model.onnx")
    assert leak(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])) == SECRET  # a real attack
    with pytest.raises(BundleError, match=r"model\.onnx: refused: external data.*export the model again"):
        Bundle.open(hostile.folder)
    with pytest.raises(BundleError, match="refused: external data"):
        predictor.Predictor(hostile)
    with pytest.raises(InputError, match="external data"):
        predictor.open_session(content, 1)


def test_onnx_runtime_reads_no_file_even_if_the_check_misses_it(
    hostile: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "find_objection", lambda model: None)
    for location in (
        ".env",
        str(Path(".env").resolve()),
        f"{'../' * 20}{Path('.env').resolve()}",
        "/proc/self/environ",
    ):
        with pytest.raises(Exception, match="External data path"):
            predictor.open_session(leaking_network(location), 1)
    with pytest.raises(BundleError, match="does not run"):
        predictor.Predictor(hostile)


def test_a_bundle_of_a_bucket_is_checked_as_one_of_a_folder(
    hostile: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "bucket"
    (models / "tiny").mkdir(parents=True)
    hostile.folder.rename(models / "tiny" / "1")
    digest = compute_digest(models / "tiny" / "1" / "bundle.json")
    (models / "registry.yaml").write_text(
        "schema_version: 2\naliases: {champion: 'tiny:1'}\nhistory: {champion: ['tiny:1']}\nversions:\n"
        f"- {{name: tiny, version: '1', bundle: tiny/1, digest: {digest}, metrics: {{}}, run: null,\n"
        "   promoted_at: 2026-11-30T00:00:00Z}\n"
    )
    monkeypatch.setenv("PNEUMO_CACHE", str(tmp_path / "cache"))
    for root in (models, f"file://{models}"):
        with pytest.raises(BundleError, match="refused: external data"):
            Bundle.open(resolve("champion", root))
