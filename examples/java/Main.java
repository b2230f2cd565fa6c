import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.*;
import java.nio.file.*;
import java.util.*;

public class Main {
    public static void main(String[] args) throws Throwable {
        try (var arena = Arena.ofConfined()) {
            var engine = Wasmtime.get("wasm_engine_new");
            var plugin = arena.allocateFrom(JAVA_BYTE, Files.readAllBytes(Path.of("dist/consul-session-plugin.wasm")));
            var out = arena.allocate(ADDRESS);
            Wasmtime.check("wasmtime_component_new", engine, plugin, plugin.byteSize(), out);
            var component = out.get(ADDRESS, 0);
            var linker = Wasmtime.get("wasmtime_component_linker_new", engine);
            Wasmtime.check("wasmtime_component_linker_add_wasip2", linker);
            Wasmtime.check("wasmtime_component_linker_add_wasi_http", linker);
            var store = Wasmtime.get("wasmtime_store_new", engine, MemorySegment.NULL, MemorySegment.NULL);
            var context = Wasmtime.get("wasmtime_store_context", store);
            Wasmtime.check("wasmtime_context_set_wasi", context, Wasmtime.get("wasi_config_new"));
            Wasmtime.run("wasmtime_context_set_wasi_http", context);
            var instance = arena.allocate(16, 8);
            Wasmtime.check("wasmtime_component_linker_instantiate", linker, context, component, instance);
            var index = MemorySegment.NULL;
            for (var name : List.of("consul-session:plugin/desired-state@0.1.0", "apply-json")) {
                var text = arena.allocateFrom(name);
                index = Wasmtime.get("wasmtime_component_get_export_index", component, index, text, text.byteSize() - 1);
            }
            var applyJson = arena.allocate(24, 8);
            Wasmtime.call(JAVA_BOOLEAN, "wasmtime_component_instance_get_func", instance, context, index, applyJson);

            var port = args.length > 0 ? args[0] : "8500";
            var json = arena.allocateFrom("{\"name\": \"session1\", \"delay\": \"20s\", \"port\": \"%s\"}".formatted(port));
            var options = arena.allocate(32, 8); // A wasmtime_component_val_t: the kind, and at 8 the value.
            options.set(JAVA_BYTE, 0, (byte) 12); // WASMTIME_COMPONENT_STRING
            options.set(JAVA_LONG, 8, json.byteSize() - 1);
            options.set(ADDRESS, 16, json);
            var result = arena.allocate(32, 8);
            Wasmtime.check("wasmtime_component_func_call", applyJson, context, options, 1L, result, 1L);

            // A wasmtime_component_valresult_t: whether it is ok, and a pointer to the value.
            var value = result.get(ADDRESS, 16).reinterpret(32).asSlice(8);
            if (!result.get(JAVA_BOOLEAN, 8)) {
                // A wasmtime_component_valvariant_t: the name of the case, and a pointer to its payload,
                // which is the message, or a record (14) of 48-byte fields whose last one is the message.
                var message = value.get(ADDRESS, 16).reinterpret(32);
                if (message.get(JAVA_BYTE, 0) == 14) {
                    var fields = message.get(ADDRESS, 16).reinterpret(48 * message.get(JAVA_LONG, 8));
                    message = fields.asSlice(fields.byteSize() - 32);
                }
                System.err.println(Wasmtime.text(value) + ": " + Wasmtime.text(message.asSlice(8)));
                System.exit(1);
            }
            var answer = Wasmtime.text(value); // JSON, which a larger program reads with a library.
            var id = answer.replaceAll(".*\"session_id\":\"([^\"]*)\".*", "$1");
            System.out.println(id + (answer.contains("\"changed\":true") ? " changed" : " unchanged"));
            Wasmtime.run("wasmtime_component_val_delete", result); // The rest lives as long as the process.
        }
    }
}
