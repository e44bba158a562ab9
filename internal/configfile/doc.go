// Package configfile reads and writes configuration files: the protojson of [meshv1.Config], written as YAML or JSON with snake_case names.
//
//	checks:
//	  - name: shop
//	    uri: https://shop.example.com/health
//	    interval: 30s
//	    receivers: [ops]
//	receivers:
//	  - name: ops
//	    webhook: {url: https://ops.example.com/hook}
//
// Reading is strict, and patient: a file is refused as a whole, but only after every fault of it was found. A fault says where it is (file,
// line and column), which field it is about, what is wrong and what would be right:
//
//	mesh.yaml:4:5: checks[0].intervall: unknown field; did you mean "interval"?
//
// Beyond protojson, durations are accepted as people write them: `90s`, `1m30s`, `500ms`, `1.5h`, `7d`. YAML's anchors, aliases and merge keys
// (`<<`) work. What a file may cost is bounded: 8 MiB of text, and a million values after aliases are followed.
//
// [Load] reads files, directories and standard input into one [Config]; [Parse] reads one text; [Marshal] writes a message back as YAML that
// [Parse] reads as the same message. Nothing here keeps state; everything may be called concurrently.
package configfile
