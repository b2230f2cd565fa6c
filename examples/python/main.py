import json
import sys

from wasmtime import Engine, Store, WasiConfig
from wasmtime.component import Component, Linker

engine = Engine()
linker = Linker(engine)
linker.add_wasip2()
linker.add_wasi_http()
store = Store(engine)
store.set_wasi(WasiConfig())
store.set_wasi_http()
instance = linker.instantiate(store, Component.from_file(engine, "dist/consul-session-plugin.wasm"))
interface = instance.get_export_index(store, "consul-session:plugin/desired-state@0.1.0")
apply_json = instance.get_func(store, instance.get_export_index(store, "apply-json", interface))

options = {"name": "session1", "delay": "20s"}
if len(sys.argv) > 1:
    options["port"] = sys.argv[1]
result = apply_json(store, json.dumps(options))
apply_json.post_return(store)
if isinstance(result, str):
    answer = json.loads(result)
    print(answer["session_id"], "changed" if answer["changed"] else "unchanged")
else:
    sys.exit(f"{result.tag}: {getattr(result.payload, 'message', result.payload)}")
