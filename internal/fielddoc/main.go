// Command fielddoc is a plugin of buf that writes the field reference of the manual: the text between a line `<!-- fields: NAME -->` and the next line
// `<!-- /fields -->` of every page in docs/checks, where NAME is a message or an enum of the protos, becomes a table of its fields or values with their
// comments. So the manual says what the protos say, and the generated step of CI notices a page that was not generated again.
//
// internal/tools/buf.gen.yaml runs it, from the root of the repository, with everything else that is generated. Its one parameter is the folder of the pages.
// A marker that names nothing, or is not closed, fails the whole run and changes nothing.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	protogen.Options{}.Run(generate)
}

// generate hands every page, with its tables filled, to buf, which writes it.
func generate(plugin *protogen.Plugin) error {
	plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
	folder := plugin.Request.GetParameter()
	pages, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil {
		return err
	}
	if len(pages) == 0 {
		return fmt.Errorf("there is no page in %q; buf runs this from the root of the repository, with the folder as its only option", folder)
	}
	tables := tablesOf(plugin.Files)
	for _, path := range pages {
		old, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		page, err := fill(string(old), tables)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if _, err := plugin.NewGeneratedFile(filepath.Base(path), "").Write([]byte(page)); err != nil {
			return err
		}
	}
	return nil
}
