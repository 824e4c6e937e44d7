OF = {"roof": "of slate", "wall": "of brick"}
