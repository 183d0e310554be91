mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  region             = "eu-west-1"
  cluster_admin_arns = ["arn:aws:iam::123456789012:role/admin"]
}

# A plan: tests destroy what they create, which protection refuses.
run "protected_by_default" {
  command = plan

  assert {
    condition     = terraform_data.deletion_protection.input
    error_message = "The stack is protected unless it is turned off."
  }
}
