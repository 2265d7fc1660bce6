"""From a merged model to GGUF files that the server loads: source, convert, quantize, verify."""
