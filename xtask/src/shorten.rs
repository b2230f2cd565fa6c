//! Makes a component smaller by what is inside it only: no function is touched.
//!
//! Its modules and instances are linked by names, such as `[method]outgoing-request.set-path-with-query`, each of which stands in
//! it two or three times, and which nobody sees from outside. Here each becomes a letter or two, in all places alike: 6 kB of the
//! plugin. Names of the component's own imports and exports stay, and so do those of types.

use std::collections::HashMap;
use std::convert::Infallible;
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent, component_utils, utils};
use wasm_encoder::{
    Alias, Component, ComponentImportSection, ComponentInstanceSection, ExportSection, ImportSection, InstanceSection, Module,
};
use wasmparser::{
    ComponentAlias, ComponentImportSectionReader, ComponentInstance, CustomSectionReader, Export, Import, Imports, Instance,
    KnownCustom, Parser, Validator,
};

/// The same component with short names, and without what only names its inner parts or says what made them.
pub fn shorten(component: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut shorter = Component::new();
    Names::default().parse_component(&mut shorter, Parser::new(0), component)?;
    let shorter = shorter.finish();
    Validator::new().validate_all(&shorter)?;
    Ok(shorter)
}

/// The short name of each.
#[derive(Default)]
struct Names(HashMap<String, &'static str>);

impl Names {
    /// `a` to `z`, then `aa`, …; kept to the end of the program.
    fn short(&mut self, name: &str) -> &'static str {
        let mut number = self.0.len();
        self.0.entry(name.to_owned()).or_insert_with(|| {
            let mut short = String::new();
            loop {
                short.insert(0, char::from(b'a' + (number % 26) as u8));
                match number / 26 {
                    0 => return short.leak(),
                    more => number = more - 1,
                }
            }
        })
    }

    /// What `wit-component` calls the imports of the inner components by which it exports an interface.
    fn short_inner<'a>(&mut self, name: &'a str) -> &'a str {
        if name.starts_with("import-") { self.short(name) } else { name }
    }
}

impl Reencode for Names {
    type Error = Infallible;

    fn parse_imports(&mut self, section: &mut ImportSection, imports: Imports<'_>) -> Result<(), Error> {
        let imports = match imports {
            Imports::Single(at, import) => {
                let (module, name) = (self.short(import.module), self.short(import.name));
                Imports::Single(at, Import { module, name, ..import })
            }
            // Nothing writes the shorter forms yet; a name that only stays in one place would be found by the validation.
            other => other,
        };
        utils::parse_imports(self, section, imports)
    }

    fn parse_export(&mut self, section: &mut ExportSection, export: Export<'_>) -> Result<(), Error> {
        let name = self.short(export.name);
        utils::parse_export(self, section, Export { name, ..export })
    }

    fn parse_custom_section(&mut self, to: &mut Module, section: CustomSectionReader<'_>) -> Result<(), Error> {
        match section.as_known() {
            KnownCustom::Producers(_) => Ok(()),
            // Names of functions are there only where cargo was told to leave them, for a profile.
            _ => utils::parse_custom_section(self, to, section),
        }
    }
}

impl ReencodeComponent for Names {
    fn parse_component_custom_section(&mut self, to: &mut Component, section: CustomSectionReader<'_>) -> Result<(), Error> {
        match section.as_known() {
            KnownCustom::ComponentName(_) => Ok(()),
            _ => component_utils::parse_component_custom_section(self, to, section),
        }
    }

    fn component_alias<'a>(&mut self, alias: ComponentAlias<'a>) -> Result<Alias<'a>, Error> {
        let alias = match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index, name } => {
                ComponentAlias::CoreInstanceExport { kind, instance_index, name: self.short(name) }
            }
            other => other,
        };
        component_utils::component_alias(self, alias)
    }

    fn parse_instance(&mut self, section: &mut InstanceSection, mut instance: Instance<'_>) -> Result<(), Error> {
        match &mut instance {
            Instance::Instantiate { args, .. } => args.iter_mut().for_each(|arg| arg.name = self.short(arg.name)),
            Instance::FromExports(exports) => exports.iter_mut().for_each(|export| export.name = self.short(export.name)),
        }
        component_utils::parse_instance(self, section, instance)
    }

    fn parse_component_import_section(
        &mut self,
        section: &mut ComponentImportSection,
        imports: ComponentImportSectionReader<'_>,
    ) -> Result<(), Error> {
        for import in imports {
            let mut import = import?;
            import.name.name = self.short_inner(import.name.name);
            section.import(import.name, self.component_type_ref(import.ty)?);
        }
        Ok(())
    }

    fn parse_component_instance(
        &mut self,
        section: &mut ComponentInstanceSection,
        mut instance: ComponentInstance<'_>,
    ) -> Result<(), Error> {
        if let ComponentInstance::Instantiate { args, .. } = &mut instance {
            args.iter_mut().for_each(|arg| arg.name = self.short_inner(arg.name));
        }
        component_utils::parse_component_instance(self, section, instance)
    }
}
