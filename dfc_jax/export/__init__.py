"""What is written of a face: records, arrays, pictures, meshes, textures."""
