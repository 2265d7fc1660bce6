"""An evaluation as it is judged and shown: record, metrics, verdict, tables, and the pages made of them."""
