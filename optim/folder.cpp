namespace shoestring {}
