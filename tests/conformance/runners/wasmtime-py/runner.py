"""The conformance runner for wasmtime-py: `python3 runner.py PLUGIN`. ../README.md specifies the protocol."""

import json
import sys
from importlib.metadata import version

from wasmtime import Engine, Store, WasiConfig
from wasmtime.component import Component, Linker

engine = Engine()
linker = Linker(engine)
linker.add_wasip2()
linker.add_wasi_http()
store = Store(engine)
store.set_wasi(WasiConfig())
store.set_wasi_http()
instance = linker.instantiate(store, Component.from_file(engine, sys.argv[1]))
interface = instance.get_export_index(store, "consul-session:plugin/desired-state@0.1.0")
apply_json = instance.get_func(store, instance.get_export_index(store, "apply-json", interface))


def answer(options):
    result = apply_json(store, options)
    apply_json.post_return(store)
    # wasmtime-py unwraps a `result` whose sides have different types: a string is the answer, a
    # variant the error.
    if isinstance(result, str):
        return {"ok": result}
    return {"err": {"tag": result.tag, "val": result.payload}}


print(json.dumps({"runtime": "wasmtime-py", "version": version("wasmtime")}), flush=True)
for line in sys.stdin:
    # A record is an object with an attribute for each field.
    print(json.dumps(answer(json.loads(line)), default=vars), flush=True)
