"""The demo task: templated sentence pairs in ten languages, made by `xlt_ray.demo.generate`."""
