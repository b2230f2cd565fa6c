"""Calls each function of `locks` with wasmtime-py: `python3 locks.py PLUGIN PORT SESSION SESSION`.

Prints the fencing number of the second session."""

import sys

from wasmtime import Engine, Store, WasiConfig
from wasmtime.component import Component, Linker, Record

plugin, port, first, second = sys.argv[1:]
engine = Engine()
linker = Linker(engine)
linker.add_wasip2()
linker.add_wasi_http()
store = Store(engine)
store.set_wasi(WasiConfig())
store.set_wasi_http()
instance = linker.instantiate(store, Component.from_file(engine, plugin))
locks = instance.get_export_index(store, "consul-session:plugin/locks@0.1.0")


def call(name, *arguments):
    function = instance.get_func(store, instance.get_export_index(store, name, locks))
    result = function(store, *arguments)
    function.post_return(store)
    return result


def record(fields):
    made = Record()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


FIELDS = ["host", "port", "scheme", "validate-certs", "token", "datacenter", "namespace", "partition", "timeout"]
connection = record({**dict.fromkeys(FIELDS), "port": int(port)})
contents = record({"value": bytes([0, 255, 62]), "flags": 3304740253564472344})

acquired = call("acquire", "key", first, contents, connection)
assert (acquired.tag, acquired.payload.tag) == ("ok", "acquired"), acquired
held = call("acquire", "key", second, contents, connection)
assert (held.tag, held.payload.tag) == ("ok", "held"), held
lock = call("holder", "key", None, connection).lock
assert vars(lock) == vars(acquired.payload.payload), vars(lock)
assert (lock.session, lock.value, lock.flags) == (first, contents.value, contents.flags), vars(lock)
assert call("release", "key", second, contents, connection) is False
assert call("release", "key", first, contents, connection) is True
refused = call("acquire", "", second, contents, connection)
assert (refused.tag, refused.payload.tag) == ("err", "invalid-option"), refused
print(getattr(call("acquire", "key", second, contents, connection).payload.payload, "modify-index"))
