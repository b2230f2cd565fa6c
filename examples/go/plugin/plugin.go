// Package plugin calls the plugin by wasmtime's C library.
package plugin

/*
#cgo LDFLAGS: -lwasmtime
#include <wasmtime.h>
#include <wasmtime/component.h>

static wasmtime_component_export_index_t *find(
	wasmtime_component_t *component, wasmtime_component_export_index_t *interface, _GoString_ name) {
	return wasmtime_component_get_export_index(component, interface, _GoStringPtr(name), _GoStringLen(name));
}

static wasmtime_error_t *call(
	wasmtime_component_func_t *function, wasmtime_context_t *context, _GoString_ text, wasmtime_component_val_t *result) {
	wasmtime_component_val_t argument = {.kind = WASMTIME_COMPONENT_STRING};
	argument.of.string = (wasm_name_t){_GoStringLen(text), (char *)_GoStringPtr(text)};
	return wasmtime_component_func_call(function, context, &argument, 1, result, 1);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// Plugin is an instance of the component. One goroutine at a time may use it.
type Plugin struct {
	engine    *C.wasm_engine_t
	linker    *C.wasmtime_component_linker_t
	store     *C.wasmtime_store_t
	component *C.wasmtime_component_t
	applyJSON C.wasmtime_component_func_t
}

// Error is an error of the plugin.
type Error struct {
	// Case is the name of the case in the WIT, such as "access-denied".
	Case string
	// Payload is the message, or the fields of the case's record, "message" among them.
	Payload any
}

func (e *Error) Error() string {
	if fields, ok := e.Payload.(map[string]any); ok {
		return fmt.Sprintf("%s: %v", e.Case, fields["message"])
	}
	return fmt.Sprintf("%s: %v", e.Case, e.Payload)
}

// Load compiles the component in the file and makes an instance. The caller must Close it.
func Load(file string) (*Plugin, error) {
	bytes, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	engine := C.wasm_engine_new()
	p := &Plugin{
		engine: engine,
		linker: C.wasmtime_component_linker_new(engine),
		store:  C.wasmtime_store_new(engine, nil, nil),
	}
	if err := p.instantiate(bytes); err != nil {
		p.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

func (p *Plugin) instantiate(bytes []byte) error {
	data, size := (*C.uint8_t)(unsafe.SliceData(bytes)), C.size_t(len(bytes))
	if err := failure(C.wasmtime_component_new(p.engine, data, size, &p.component)); err != nil {
		return err
	}
	if err := failure(C.wasmtime_component_linker_add_wasip2(p.linker)); err != nil {
		return err
	}
	if err := failure(C.wasmtime_component_linker_add_wasi_http(p.linker)); err != nil {
		return err
	}
	context := C.wasmtime_store_context(p.store)
	if err := failure(C.wasmtime_context_set_wasi(context, C.wasi_config_new())); err != nil {
		return err
	}
	C.wasmtime_context_set_wasi_http(context)
	var instance C.wasmtime_component_instance_t
	if err := failure(C.wasmtime_component_linker_instantiate(p.linker, context, p.component, &instance)); err != nil {
		return err
	}
	desiredState := C.find(p.component, nil, "consul-session:plugin/desired-state@0.1.0")
	if desiredState == nil {
		return errors.New("the component has no interface desired-state@0.1.0")
	}
	defer C.wasmtime_component_export_index_delete(desiredState)
	applyJSON := C.find(p.component, desiredState, "apply-json")
	if applyJSON == nil {
		return errors.New("the component has no function apply-json")
	}
	defer C.wasmtime_component_export_index_delete(applyJSON)
	C.wasmtime_component_instance_get_func(&instance, context, applyJSON, &p.applyJSON)
	return nil
}

// Close frees the instance and what it needs.
func (p *Plugin) Close() {
	if p.component != nil {
		C.wasmtime_component_delete(p.component)
	}
	C.wasmtime_store_delete(p.store)
	C.wasmtime_component_linker_delete(p.linker)
	C.wasm_engine_delete(p.engine)
}

// ApplyJSON calls the function apply-json of the interface desired-state. An error of the plugin is
// an *Error. After any other error, which is a trap, the instance cannot be called again.
func (p *Plugin) ApplyJSON(options string) (string, error) {
	var result C.wasmtime_component_val_t
	if err := failure(C.call(&p.applyJSON, C.wasmtime_store_context(p.store), options, &result)); err != nil {
		return "", err
	}
	defer C.wasmtime_component_val_delete(&result)
	answer := of[C.wasmtime_component_valresult_t](&result)
	if answer.is_ok {
		return text(of[C.wasm_name_t](answer.val)), nil
	}
	variant := of[C.wasmtime_component_valvariant_t](answer.val)
	return "", &Error{text(&variant.discriminant), value(variant.val)}
}

// failure returns an error of wasmtime as one of Go.
func failure(err *C.wasmtime_error_t) error {
	if err == nil {
		return nil
	}
	defer C.wasmtime_error_delete(err)
	var message C.wasm_name_t
	C.wasmtime_error_message(err, &message)
	defer C.wasm_byte_vec_delete(&message)
	return errors.New(text(&message))
}

// value returns a value of the types that the plugin's errors have.
func value(v *C.wasmtime_component_val_t) any {
	switch v.kind {
	case C.WASMTIME_COMPONENT_STRING:
		return text(of[C.wasm_name_t](v))
	case C.WASMTIME_COMPONENT_U16:
		return uint16(*of[C.uint16_t](v))
	case C.WASMTIME_COMPONENT_LIST:
		vector := of[C.wasmtime_component_vallist_t](v)
		list := make([]any, vector.size)
		for i, element := range unsafe.Slice(vector.data, vector.size) {
			list[i] = value(&element)
		}
		return list
	case C.WASMTIME_COMPONENT_RECORD:
		vector := of[C.wasmtime_component_valrecord_t](v)
		record := make(map[string]any, vector.size)
		for _, field := range unsafe.Slice(vector.data, vector.size) {
			record[text(&field.name)] = value(&field.val)
		}
		return record
	}
	return fmt.Errorf("a value of kind %d", v.kind)
}

// of returns the member of a value's union that its kind says it is.
func of[T any](v *C.wasmtime_component_val_t) *T { return (*T)(unsafe.Pointer(&v.of)) }

func text(name *C.wasm_name_t) string { return C.GoStringN(name.data, C.int(name.size)) }
