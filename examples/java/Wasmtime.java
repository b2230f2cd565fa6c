import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.*;
import java.util.*;

/** Calls of wasmtime's C library, whose functions take pointers and sizes. */
class Wasmtime {
    static {
        System.loadLibrary("wasmtime");
    }

    /** Calls a function that returns nothing. */
    static void run(String function, Object... arguments) throws Throwable {
        call(null, function, arguments);
    }

    /** Calls a function that returns a pointer. */
    static MemorySegment get(String function, Object... arguments) throws Throwable {
        return (MemorySegment) call(ADDRESS, function, arguments);
    }

    /** Calls a function that returns an error, or null where it succeeds. */
    static void check(String function, Object... arguments) throws Throwable {
        var error = get(function, arguments);
        if (error.address() == 0) return;
        try (var arena = Arena.ofConfined()) {
            var message = arena.allocate(16);
            run("wasmtime_error_message", error, message);
            throw new IllegalStateException(text(message));
        }
    }

    /** Reads a wasm_name_t, which is a size and a pointer. */
    static String text(MemorySegment name) {
        return new String(name.get(ADDRESS, 8).reinterpret(name.get(JAVA_LONG, 0)).toArray(JAVA_BYTE));
    }

    static Object call(MemoryLayout result, String function, Object... arguments) throws Throwable {
        var layouts = Arrays.stream(arguments).map(a -> a instanceof Long ? JAVA_LONG : ADDRESS).toArray(MemoryLayout[]::new);
        var type = result == null ? FunctionDescriptor.ofVoid(layouts) : FunctionDescriptor.of(result, layouts);
        var address = SymbolLookup.loaderLookup().find(function).orElseThrow();
        return Linker.nativeLinker().downcallHandle(address, type).invokeWithArguments(arguments);
    }
}
