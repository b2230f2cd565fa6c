#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasmtime.h>
#include <wasmtime/component.h>

static void check(wasmtime_error_t *error) {
    if (!error) return;
    wasm_name_t message;
    wasmtime_error_message(error, &message);
    fprintf(stderr, "%.*s\n", (int)message.size, message.data);
    exit(EXIT_FAILURE);
}

int main(int argc, char **argv) {
    static uint8_t plugin[4 << 20];
    FILE *file = fopen("dist/consul-session-plugin.wasm", "rb");
    if (!file) return perror("dist/consul-session-plugin.wasm"), EXIT_FAILURE;
    size_t size = fread(plugin, 1, sizeof plugin, file);
    fclose(file);

    wasm_engine_t *engine = wasm_engine_new();
    wasmtime_component_t *component;
    check(wasmtime_component_new(engine, plugin, size, &component));
    wasmtime_component_linker_t *linker = wasmtime_component_linker_new(engine);
    check(wasmtime_component_linker_add_wasip2(linker));
    check(wasmtime_component_linker_add_wasi_http(linker));
    wasmtime_context_t *store = wasmtime_store_context(wasmtime_store_new(engine, NULL, NULL));
    check(wasmtime_context_set_wasi(store, wasi_config_new()));
    wasmtime_context_set_wasi_http(store);
    wasmtime_component_instance_t instance;
    check(wasmtime_component_linker_instantiate(linker, store, component, &instance));

    const char *path[] = {"consul-session:plugin/desired-state@0.1.0", "apply-json"};
    wasmtime_component_export_index_t *index = NULL;
    for (int i = 0; i < 2; i++)
        index = wasmtime_component_instance_get_export_index(&instance, store, index, path[i], strlen(path[i]));
    wasmtime_component_func_t apply_json;
    if (!index || !wasmtime_component_instance_get_func(&instance, store, index, &apply_json))
        return fputs("the plugin has no apply-json\n", stderr), EXIT_FAILURE;

    char json[80];
    snprintf(json, sizeof json, "{\"name\":\"session1\",\"delay\":\"20s\",\"port\":\"%s\"}", argc > 1 ? argv[1] : "8500");
    wasmtime_component_val_t options = {.kind = WASMTIME_COMPONENT_STRING, .of.string = {strlen(json), json}}, result = {0};
    check(wasmtime_component_func_call(&apply_json, store, &options, 1, &result, 1));
    bool is_ok = result.of.result.is_ok;
    wasmtime_component_valunion_t *value = &result.of.result.val->of;
    if (is_ok) {  // The answer is JSON without spaces. A larger program reads it with a library.
        char *answer = strndup(value->string.data, value->string.size), *id = strstr(answer, "\"session_id\":\"");
        printf("%.36s %s\n", id + strlen("\"session_id\":\""), strstr(answer, "\"changed\":true") ? "changed" : "unchanged");
        free(answer);
    } else {  // The payload is the message, or a record whose last field is the message.
        wasmtime_component_val_t *message = value->variant.val;
        if (message->kind == WASMTIME_COMPONENT_RECORD) message = &message->of.record.data[message->of.record.size - 1].val;
        wasm_name_t name = value->variant.discriminant, text = message->of.string;
        fprintf(stderr, "%.*s: %.*s\n", (int)name.size, name.data, (int)text.size, text.data);
    }
    wasmtime_component_val_delete(&result);  // The rest is for all calls: its memory ends with the process.
    return is_ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
